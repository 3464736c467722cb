// The steps of a webhook: each shows and explains what was done.
import { Code, Text, Title } from '@mantine/core';
import { IconCheck, IconLoader2, IconX } from '@tabler/icons-react';
import type { ReactNode } from 'react';

import { bytes, duration } from '../../format';
import { Status, statusOf } from '../../ui/Status';
import type { DemoProvider } from './queries';
import classes from './Steps.module.css';
import type { Try } from './useDemo';

const reasons: Record<string, string> = {
  signature_invalid:
    "The signature doesn't match the body. Either the sender doesn't have the secret, or the body was changed in transit.",
  signature_missing: 'The request has no signature.',
  timestamp_out_of_tolerance:
    'The signature is valid but too old. Otherwise, anyone who recorded a valid webhook could send it again later.',
};

export function Steps({ of: { sent, seen, fault }, provider }: { of: Try; provider: DemoProvider }) {
  const accepted = sent.answer.status === 200;
  const signature = sent.request.headers.find(({ name }) => name === provider.signatureHeader);
  const received = seen?.events[0];
  const end = seen && (seen.status === 'SUCCESS' || seen.status === 'FAILED');
  return (
    <ol className={classes.steps} aria-live="polite">
      <Step state="done" title="Signed">
        <Text size="sm">
          The sender signs {provider.signedContent} with a secret that only the sender and Hookledger know (
          {provider.algorithm}).
          {fault === 'broken' && ' Here, the signature is for a different body than the one sent.'}
          {fault === 'stale' && ' Here, the timestamp is an hour old.'}
        </Text>
        {signature && (
          <Code block className={classes.code}>
            {signature.name}: {signature.value}
          </Code>
        )}
      </Step>
      <Step state="done" title="Sent">
        <Text size="sm">
          {sent.request.method} {new URL(sent.request.url).pathname}, {bytes(new Blob([sent.request.body]).size)}
        </Text>
        <details className={classes.details}>
          <summary>Full request</summary>
          <Code block className={classes.code}>
            {sent.request.headers.map(({ name, value }) => `${name}: ${value}`).join('\n')}
            {'\n\n'}
            {sent.request.body}
          </Code>
        </details>
      </Step>
      <Step
        state={accepted ? 'done' : 'failed'}
        title={accepted ? (sent.duplicate ? 'Verified: duplicate' : 'Verified') : 'Rejected'}
      >
        <Text size="sm">
          {accepted
            ? sent.duplicate
              ? 'The signature is valid. A webhook with this event ID was received before, so this one is not processed again.'
              : 'Hookledger computes the signature of the received bytes and compares the two in constant time. They match.'
            : (reasons[seen?.rejection ?? ''] ?? 'The request was rejected.')}
        </Text>
        {sent.duplicate && seen?.bodyDiffers && (
          <Text size="sm">Its body differs from the first webhook's, so it is flagged for review.</Text>
        )}
      </Step>
      <Step state={sent.webhookId ? (seen ? 'done' : 'waiting') : 'failed'} title="Stored">
        <Text size="sm">
          {accepted
            ? 'The event was written to the append-only log on disk before the sender got a response. A crash from here on loses nothing.'
            : 'The rejected request is also in the log, with the reason. It never blocks the valid webhook.'}
        </Text>
        {received && seen && (
          <Text size="xs" className="quiet mono foreign">
            Position {received.position} · SHA-256 {seen.bodySha256}
          </Text>
        )}
      </Step>
      <Step state={accepted ? 'done' : 'failed'} title={`Response ${sent.answer.status}`}>
        <Code block className={classes.code}>
          {sent.answer.body}
        </Code>
      </Step>
      <Step
        state={accepted ? (end ? (seen?.status === 'SUCCESS' ? 'done' : 'failed') : 'waiting') : 'skipped'}
        title={accepted ? 'Processed' : 'Not processed'}
      >
        {accepted ? (
          <Text size="sm">
            With a destination, Hookledger would now forward it to your URL, with retries after 1, 5, and 15 minutes.
            This demo has no destination, so webhooks are stored only.
          </Text>
        ) : (
          <Text size="sm">Webhooks that fail verification are never processed.</Text>
        )}
        {seen && <Status value={statusOf({ ...seen, deadLetteredAt: null })} />}
      </Step>
      {seen && seen.events.length > 0 && (
        <Step state="done" title="Events in the log">
          <table className={classes.events}>
            <tbody>
              {seen.events.map((event) => (
                <tr key={event.sequence}>
                  <td className="quiet">+{duration(event.offsetMs)}</td>
                  <td>
                    <details>
                      <summary className="mono">{event.eventType}</summary>
                      <Code block className={classes.code}>
                        {JSON.stringify(event.payload, null, 2)}
                      </Code>
                    </details>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Step>
      )}
    </ol>
  );
}

type State = 'done' | 'waiting' | 'failed' | 'skipped';

function Step({ state, title, children }: { state: State; title: string; children: ReactNode }) {
  const Mark = { done: IconCheck, waiting: IconLoader2, failed: IconX, skipped: IconX }[state];
  return (
    <li className={classes.step} data-state={state}>
      <span className={classes.mark}>
        <Mark
          size={14}
          aria-label={{ done: 'Done', waiting: 'In progress', failed: 'Rejected', skipped: 'Skipped' }[state]}
        />
      </span>
      <div className={classes.content}>
        <Title order={3}>{title}</Title>
        {children}
      </div>
    </li>
  );
}
