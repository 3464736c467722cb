// What happens to a webhook, step by step: each says what was done and why, and shows it.
import { Code, Text, Title } from '@mantine/core';
import { IconCheck, IconLoader2, IconX } from '@tabler/icons-react';
import type { ReactNode } from 'react';

import { bytes, duration } from '../../format';
import { Status, standing } from '../../ui/Status';
import type { DemoProvider } from './queries';
import classes from './Steps.module.css';
import type { Try } from './useDemo';

const reasons: Record<string, string> = {
  signature_invalid:
    'The signature does not fit the body, so it was not made by whoever knows the secret: or something changed on the way.',
  signature_missing: 'There is no signature at all.',
  timestamp_out_of_tolerance:
    'The signature is right but old. Who records genuine webhooks could otherwise send them again later.',
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
          The sender computes {provider.algorithm} over {provider.signedContent}, with a secret that only the two sides
          know
          {fault === 'broken'
            ? ', but over another body than the one that is sent'
            : fault === 'stale'
              ? ', with the time of an hour ago'
              : ''}
          .
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
          <summary>The whole request</summary>
          <Code block className={classes.code}>
            {sent.request.headers.map(({ name, value }) => `${name}: ${value}`).join('\n')}
            {'\n\n'}
            {sent.request.body}
          </Code>
        </details>
      </Step>
      <Step
        state={accepted ? 'done' : 'failed'}
        title={accepted ? (sent.duplicate ? 'Verified, and known already' : 'Verified') : 'Refused'}
      >
        <Text size="sm">
          {accepted
            ? sent.duplicate
              ? 'The signature fits. An event of this id was received before: it is the same webhook, and is not processed twice.'
              : 'The same computation over the bytes as they came gives the same signature, compared in constant time.'
            : (reasons[seen?.rejection ?? ''] ?? 'It is not taken.')}
        </Text>
        {sent.duplicate && seen?.bodyDiffers && (
          <Text size="sm">Its body differs from the first one's, which is flagged: a person should look.</Text>
        )}
      </Step>
      <Step state={sent.webhookId ? (seen ? 'done' : 'waiting') : 'failed'} title="Recorded">
        <Text size="sm">
          {accepted
            ? 'Before the sender got its answer, the event was in the append-only log, on disk. A crash from here on loses nothing.'
            : 'The attempt is in the log as well, with what was wrong. It takes no place from the genuine webhook.'}
        </Text>
        {received && seen && (
          <Text size="xs" className="quiet mono foreign">
            position {received.position} · SHA-256 {seen.bodySha256}
          </Text>
        )}
      </Step>
      <Step state={accepted ? 'done' : 'failed'} title={`Answered ${sent.answer.status}`}>
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
            It would be forwarded to your URL now, with retries after 1, 5 and 15 minutes. Nobody is behind this demo,
            so that recording it is its processing.
          </Text>
        ) : (
          <Text size="sm">What is not verified goes nowhere.</Text>
        )}
        {seen && <Status value={standing({ ...seen, deadLetteredAt: null })} />}
      </Step>
      {seen && seen.events.length > 0 && (
        <Step state="done" title="What the log holds of it">
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
  const Symbol = { done: IconCheck, waiting: IconLoader2, failed: IconX, skipped: IconX }[state];
  return (
    <li className={classes.step} data-state={state}>
      <span className={classes.mark}>
        <Symbol
          size={14}
          aria-label={{ done: 'Done', waiting: 'Under way', failed: 'Refused', skipped: 'Left out' }[state]}
        />
      </span>
      <div className={classes.content}>
        <Title order={3}>{title}</Title>
        {children}
      </div>
    </li>
  );
}
