// Every attempt: the request, and the response.
import { Group, Text } from '@mantine/core';
import { IconCircleCheckFilled, IconCircleXFilled, IconLoader2 } from '@tabler/icons-react';

import { bytes, duration } from '../../../format';
import { When } from '../../../time';
import { Countdown } from '../../../ui/Countdown';
import { providers } from '../../../ui/ProviderName';
import { RawText } from '../../../ui/payload/RawText';
import { beginning, visible } from '../../../ui/payload/visible';
import { statusOf } from '../../../ui/Status';
import classes from './detail.module.css';
import type { Attempt, Webhook } from './queries';
import { Foreign } from './Summary';

export function Attempts({ of: webhook }: { of: Webhook }) {
  const next = statusOf(webhook);
  return (
    <div className={classes.attempts}>
      {webhook.attempts.length === 0 && (
        <Text size="sm" className="quiet">
          {webhook.rejection ? 'Rejected webhooks are never processed.' : 'No attempts yet.'}
        </Text>
      )}
      {[...webhook.attempts].reverse().map((attempt) => (
        <OneAttempt key={attempt.attemptNumber} attempt={attempt} webhook={webhook} />
      ))}
      {next === 'failed' && (
        <Text size="sm" aria-live="off">
          Next retry: <Countdown to={webhook.nextRetryAt} />
        </Text>
      )}
    </div>
  );
}

function OneAttempt({ attempt, webhook }: { attempt: Attempt; webhook: Webhook }) {
  const [VerdictIcon, color, word] =
    attempt.succeeded === null
      ? [IconLoader2, 'var(--processing)', 'In progress']
      : attempt.succeeded
        ? [IconCircleCheckFilled, 'var(--success)', 'Succeeded']
        : [IconCircleXFilled, 'var(--failed)', 'Failed'];
  return (
    <section className={classes.attempt} aria-label={`Attempt ${attempt.attemptNumber}`}>
      <Group justify="space-between" gap="xs">
        <Group gap="xs">
          <span className={classes.verdict} style={{ color }}>
            <VerdictIcon size={16} aria-hidden /> {word}
          </span>
          <Text span size="sm" fw={600}>
            Attempt {attempt.attemptNumber}
          </Text>
          {attempt.statusCode !== null && <span className={`mono ${classes.code}`}>{attempt.statusCode}</span>}
        </Group>
        <Group gap="xs">
          <Text span size="sm" className="quiet">
            {duration(attempt.durationMs)}
          </Text>
          <When at={attempt.attemptedAt} exact />
        </Group>
      </Group>
      {attempt.errorDetails && <Foreign>{attempt.errorDetails}</Foreign>}
      <details className={classes.fold}>
        <summary>Request</summary>
        {attempt.requestUrl ? (
          <Request attempt={attempt} webhook={webhook} url={attempt.requestUrl} />
        ) : (
          <Text size="sm" className="quiet">
            No destination; the webhook was stored only.
          </Text>
        )}
      </details>
      {attempt.responseExcerpt ? (
        <details className={classes.fold} open={attempt.succeeded === false}>
          <summary>Response ({bytes(new TextEncoder().encode(attempt.responseExcerpt).length)} kept)</summary>
          <RawText text={attempt.responseExcerpt} label={`Response to attempt ${attempt.attemptNumber}`} most={220} />
        </details>
      ) : (
        attempt.statusCode !== null && (
          <Text size="xs" className="quiet">
            The response had no body, or it is no longer kept.
          </Text>
        )
      )}
    </section>
  );
}

function Request({ attempt, webhook, url }: { attempt: Attempt; webhook: Webhook; url: string }) {
  // Only these values are known. The others are secrets and signatures, which are not stored.
  const known: Record<string, string> = {
    'content-type': webhook.contentType ?? 'application/octet-stream',
    'webhook-id': webhook.webhookId,
    'webhook-timestamp': String(Math.floor(Date.parse(attempt.attemptedAt) / 1000)),
    'hookledger-provider': providers[webhook.provider.providerName].slug,
    ...(webhook.eventType !== null && { 'hookledger-event-type': webhook.eventType }),
    'hookledger-attempt': String(attempt.attemptNumber),
  };
  return (
    <div className={classes.request}>
      <div>POST {visible(beginning(url, 500))}</div>
      {attempt.requestHeaderNames.map((name) => {
        const value = known[name.toLowerCase()];
        return (
          <div key={name}>
            <span className="quiet">{visible(beginning(name, 100))}:</span>{' '}
            {value === undefined ? <i className="quiet">Not kept</i> : visible(beginning(value, 300))}
          </div>
        );
      })}
      <div className="quiet">The body, byte for byte as received: {bytes(webhook.bodySize)}</div>
    </div>
  );
}
