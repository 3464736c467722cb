import { Anchor, Group, Paper, Skeleton, Text } from '@mantine/core';
import type { ReactNode } from 'react';
import { Link } from 'wouter';

import { compact, percent } from '../../format';
import { useOrganization } from '../../session/viewer';
import { useNow, When } from '../../time';
import { Active } from '../../ui/Active';
import { ProviderName, providers as services } from '../../ui/ProviderName';
import { Sparkline } from '../../ui/Sparkline';

import { Circuit } from './Circuit';
import classes from './ProviderCard.module.css';
import type { Provider } from './queries';
import { SecretState } from './SecretState';
import { useHealth } from './useHealth';

/** A provider at a glance: its health, its destination, and the state of its secrets. */
export function ProviderCard({ provider }: { provider: Provider }) {
  const { base } = useOrganization();
  const now = useNow();
  const { slug, word } = services[provider.providerName];
  return (
    <Paper withBorder p="md" bg="var(--surface)" component="section" aria-label={word}>
      <Group justify="space-between" wrap="nowrap" mb="sm">
        <Anchor component={Link} href={`${base}/providers/${slug}`} c="inherit" miw={0}>
          <ProviderName kind={provider.providerName} size="md" />
        </Anchor>
        <Active is={provider.isActive} />
      </Group>
      <Health provider={provider} />
      <dl className={classes.facts}>
        <dt>Destination</dt>
        <dd>
          {provider.destination ? (
            <>
              <Text size="sm" className="cut foreign" title={provider.destination.url}>
                {provider.destination.url}
              </Text>
              <Circuit of={provider.destination} />
            </>
          ) : (
            <Text size="sm" className="quiet">
              No destination; webhooks are stored only
            </Text>
          )}
        </dd>
        <dt>Secret</dt>
        <dd>
          <SecretState secrets={provider.secrets} now={now} />
        </dd>
      </dl>
      <Group gap="md" mt="sm">
        <Anchor component={Link} href={`${base}/webhooks?provider=${slug}`} size="sm">
          View webhooks
        </Anchor>
        <Anchor component={Link} href={`${base}/providers/${slug}`} size="sm">
          Settings
        </Anchor>
        <Anchor component={Link} href={`${base}/tester?provider=${slug}`} size="sm">
          Send test webhook
        </Anchor>
      </Group>
    </Paper>
  );
}

function Health({ provider }: { provider: Provider }) {
  const { analytics, last, error, again } = useHealth(provider.id);
  if (error) {
    return (
      <Text size="sm" h={76} c="var(--failed)" role="alert">
        Couldn't load the health data.{' '}
        <Anchor component="button" size="sm" onClick={again}>
          Try again
        </Anchor>
      </Text>
    );
  }
  if (!analytics) return <Skeleton height={76} aria-label="Loading" />;
  const { totals, buckets } = analytics;
  const rate = totals.successRate;
  return (
    <div className={classes.health}>
      <Group gap="md" wrap="nowrap" justify="space-between">
        <Figure label="Received">{compact(totals.received)}</Figure>
        <Figure
          label="Success rate"
          color={
            rate === null ? undefined : rate < 0.9 ? 'var(--failed)' : rate < 0.99 ? 'var(--pending)' : 'var(--success)'
          }
        >
          {rate === null ? '–' : percent(rate)}
        </Figure>
        <Figure label="Rejected" color={totals.rejected > 0 ? 'var(--pending)' : undefined}>
          {compact(totals.rejected)}
        </Figure>
        <Figure label="Last received">
          <When at={last?.receivedAt} />
        </Figure>
      </Group>
      <Sparkline
        summary={`Hourly for the last 24 hours: ${totals.received} received, ${totals.failed} failed attempts, ${totals.rejected} rejected`}
        bars={buckets.map(({ start, counts }) => ({
          start: Date.parse(start),
          parts: [
            { color: 'var(--processing)', value: counts.received },
            { color: 'var(--failed)', value: counts.failed },
            { color: 'var(--rejected)', value: counts.rejected },
          ],
        }))}
      />
    </div>
  );
}

function Figure({ label, color, children }: { label: string; color?: string; children: ReactNode }) {
  return (
    <div>
      <Text size="xs" className="quiet" style={{ whiteSpace: 'nowrap' }}>
        {label}
      </Text>
      <Text component="div" fw={600} c={color}>
        {children}
      </Text>
    </div>
  );
}
