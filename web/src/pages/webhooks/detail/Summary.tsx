// The most important facts: the status, what it is, and whether it is verified.
import { Alert, Anchor, SimpleGrid, Stack, Text } from '@mantine/core';
import { IconAlertTriangle, IconHourglass, IconShieldCheck, IconShieldX } from '@tabler/icons-react';
import type { ReactNode } from 'react';
import { Link } from 'wouter';

import { bytes, count, duration } from '../../../format';
import { useOrganization } from '../../../session/viewer';
import { absolute, useZone, When } from '../../../time';
import { Copy } from '../../../ui/CopyText';
import { Countdown } from '../../../ui/Countdown';
import { ProviderName, providers } from '../../../ui/ProviderName';
import { beginning, visible } from '../../../ui/payload/visible';
import { statusOf } from '../../../ui/Status';
import { notesOf } from '../columns';
import { waits } from '../waits';
import classes from './detail.module.css';
import { field } from './events';
import type { Webhook } from './queries';
import { rejectionWord, whyRejected } from './rejections';

export function Summary({ of: webhook }: { of: Webhook }) {
  const zone = useZone();
  const status = statusOf(webhook);
  const { base } = useOrganization();
  const original = field(webhook.events[0]?.payload, 'duplicateOf');
  const took = webhook.processedAt ? Date.parse(webhook.processedAt) - Date.parse(webhook.receivedAt) : null;
  return (
    <Stack gap="sm">
      {webhook.rejection && (
        <Alert
          color="gray"
          icon={<IconShieldX aria-hidden />}
          title={`Rejected: ${rejectionWord(webhook.rejection)}`}
          p="sm"
        >
          <Text size="sm">{whyRejected(webhook.rejection, providers[webhook.provider.providerName].word)}</Text>
        </Alert>
      )}
      {status === 'dead' && (
        <Alert color="violet" icon={<IconAlertTriangle aria-hidden />} title="Dead letter: needs attention" p="sm">
          <Foreign>{webhook.errorMessage}</Foreign>
        </Alert>
      )}
      {webhook.waitsFor && (
        <Alert
          color="yellow"
          icon={<IconHourglass aria-hidden />}
          title={`Waiting: ${waits[webhook.waitsFor].word.toLowerCase()}`}
          p="sm"
        >
          <Text size="sm">{waits[webhook.waitsFor].means}.</Text>
        </Alert>
      )}
      {status === 'failed' && !webhook.waitsFor && (
        <Alert
          color="red"
          icon={<IconAlertTriangle aria-hidden />}
          title={
            <>
              The last attempt failed. Next retry: <Countdown to={webhook.nextRetryAt} />
            </>
          }
          p="sm"
        >
          <Foreign>{webhook.errorMessage}</Foreign>
        </Alert>
      )}
      {notesOf(webhook)
        .filter(({ key }) => key !== 'duplicates')
        .map(({ key, word, means }) => (
          <Alert key={key} color="yellow" icon={<IconAlertTriangle aria-hidden />} title={word} p="sm">
            <Text size="sm">{means}.</Text>
          </Alert>
        ))}
      <SimpleGrid component="dl" cols={{ base: 1, xs: 2 }} spacing="md" verticalSpacing={6} className={classes.facts}>
        <Fact name="Webhook ID" copy={webhook.webhookId} mono>
          {webhook.webhookId}
        </Fact>
        <Fact name="Provider event ID" copy={webhook.providerEventId ?? undefined} mono>
          {webhook.providerEventId ? visible(beginning(webhook.providerEventId, 200)) : '–'}
        </Fact>
        <Fact name="Provider">
          <ProviderName kind={webhook.provider.providerName} />
        </Fact>
        <Fact name="Received at" title={absolute(webhook.receivedAt, zone, true)}>
          <When at={webhook.receivedAt} exact />
        </Fact>
        <Fact name="Processed at">
          {webhook.processedAt ? (
            <>
              <When at={webhook.processedAt} exact /> <span className="quiet">after {duration(took)}</span>
            </>
          ) : (
            '–'
          )}
        </Fact>
        <Fact name="Duplicates">{webhook.duplicateCount === 0 ? 'None' : count(webhook.duplicateCount)}</Fact>
        {original && (
          <Fact name="Duplicate of" mono>
            <Anchor component={Link} href={`${base}/webhooks/${original}`}>
              {original}
            </Anchor>
          </Fact>
        )}
        <Fact name="Body">
          {bytes(webhook.bodySize)}{' '}
          <bdi className="quiet">{visible(beginning(webhook.contentType ?? 'no content type', 100))}</bdi>
        </Fact>
        <Fact name="SHA-256 of the body" copy={webhook.bodySha256} mono>
          {webhook.bodySha256}
        </Fact>
        <Fact name="Signature">
          <Verified of={webhook} />
        </Fact>
        <Fact name="Signature header" copy={webhook.signatureReceived ?? undefined} mono>
          {webhook.signatureReceived ? visible(beginning(webhook.signatureReceived, 400)) : 'None'}
        </Fact>
      </SimpleGrid>
    </Stack>
  );
}

function Verified({ of: webhook }: { of: Webhook }) {
  const verified = webhook.events.find(({ eventType }) => eventType === 'webhook.signature_verified');
  if (!webhook.signatureValid) {
    return (
      <span className={classes.verdict} style={{ color: 'var(--failed)' }}>
        <IconShieldX size={16} aria-hidden />{' '}
        {webhook.rejection || webhook.status === 'FAILED' ? 'Not verified' : 'Not verified yet'}
      </span>
    );
  }
  const scheme = field(verified?.payload, 'scheme');
  const version = field(verified?.payload, 'secretVersion');
  return (
    <span className={classes.verdict} style={{ color: 'var(--success)' }}>
      <IconShieldCheck size={16} aria-hidden /> Verified{scheme && ` (${scheme})`}
      {version && `, secret version ${version}`}
    </span>
  );
}

function Fact({
  name,
  children,
  copy,
  mono = false,
  title,
}: {
  name: string;
  children: ReactNode;
  copy?: string;
  mono?: boolean;
  title?: string;
}) {
  return (
    <div className={classes.fact} title={title}>
      <dt>{name}</dt>
      <dd>
        <bdi className={mono ? 'mono cut' : 'cut'} title={mono && typeof children === 'string' ? children : undefined}>
          {children}
        </bdi>
        {copy && <Copy value={copy} label={`Copy ${name}`} />}
      </dd>
    </div>
  );
}

export function Foreign({ children }: { children: string | null | undefined }) {
  return <div className={`foreign ${classes.text}`}>{visible(beginning(children ?? 'No error recorded', 2_000))}</div>;
}
