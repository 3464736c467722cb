import { Group, Skeleton, Text } from '@mantine/core';
import { useMemo } from 'react';
import { useLocation } from 'wouter';

import { count, duration, percent } from '../../format';
import { useOrganization } from '../../session/viewer';
import { When } from '../../time';
import { Card } from '../../ui/Card';
import { ErrorCard } from '../../ui/ErrorCard';
import { Legend } from '../../ui/Legend';
import { providers as services } from '../../ui/ProviderName';
import { TimeChart } from '../../ui/TimeChart';

import type { Provider } from './queries';
import { useHealth } from './useHealth';

/** The last 24 hours, by the hour. A click on an hour shows its webhooks. */
export function HealthCard({ provider }: { provider: Provider }) {
  const { base } = useOrganization();
  const [, go] = useLocation();
  const { analytics, last, step, error, again } = useHealth(provider.id);
  const starts = useMemo(() => analytics?.buckets.map(({ start }) => Date.parse(start)) ?? [], [analytics]);
  const series = useMemo(() => {
    const of = (name: 'received' | 'rejected' | 'failed') => analytics?.buckets.map(({ counts }) => counts[name]) ?? [];
    return [
      { label: 'Received', color: 'var(--processing)', values: of('received') },
      { label: 'Failed attempts', color: 'var(--failed)', values: of('failed') },
      { label: 'Rejected', color: 'var(--rejected)', values: of('rejected') },
    ];
  }, [analytics]);
  const pick = (start: number) => {
    const span = new URLSearchParams({
      provider: services[provider.providerName].slug,
      from: new Date(start).toISOString(),
      to: new Date(start + step).toISOString(),
    });
    go(`${base}/webhooks?${span}`);
  };
  const rate = analytics?.totals.successRate;
  return (
    <Card title="Last 24 hours" actions={<Legend of={series} />}>
      {error && <ErrorCard error={error} again={again} />}
      {!analytics && !error && <Skeleton height={206} aria-label="Loading" />}
      {analytics && (
        <>
          <Group gap="2px 18px" mb="xs">
            <Fact label="received" value={count(analytics.totals.received)} />
            <Fact label="success rate" value={rate === null || rate === undefined ? '–' : percent(rate)} />
            <Fact label="failed attempts" value={count(analytics.totals.failed)} />
            <Fact label="dead letters" value={count(analytics.totals.deadLettered)} />
            <Fact label="rejected" value={count(analytics.totals.rejected)} />
            <Fact label="median latency" value={duration(analytics.totals.latency.p50)} />
            <Text size="sm" className="quiet">
              last received <When at={last?.receivedAt} />
            </Text>
          </Group>
          <TimeChart
            kind="bars"
            starts={starts}
            step={step}
            series={series}
            height={160}
            format={count}
            onPick={pick}
            summary={`${count(analytics.totals.received)} received in the last 24 hours`}
          />
        </>
      )}
    </Card>
  );
}

function Fact({ label, value }: { label: string; value: string }) {
  return (
    <Text size="sm" className="quiet">
      <Text span size="sm" fw={600} c="var(--ink)">
        {value}
      </Text>{' '}
      {label}
    </Text>
  );
}
