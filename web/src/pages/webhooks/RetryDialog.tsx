// Asks before many webhooks are retried: how many, and why.
import { Alert, Button, Group, Modal, Progress, Skeleton, Stack, Text, Textarea } from '@mantine/core';
import { notifications } from '@mantine/notifications';
import { useRef, useState } from 'react';
import { useMutation } from 'urql';

import { useAsk } from '../../api/ask';
import { sentence } from '../../api/errors';
import { count, plural } from '../../format';
import { useOrganization } from '../../session/viewer';
import type { ServerFilter } from './filter';
import { RetryableQuery, RetryMatchingMutation, type WebhookRow } from './queries';
import { type Outcome, useRetryEach } from './retry';

export type RetryTarget =
  | { rows: readonly Pick<WebhookRow, 'id' | 'webhookId'>[] }
  | { filter: ServerFilter; what?: string };

type Props = { close: () => void; done: () => void; onRow?: (row: WebhookRow) => void };

export function RetryDialog({ target, ...props }: Props & { target: RetryTarget | null }) {
  return (
    <Modal
      opened={target !== null}
      onClose={props.close}
      title={target && 'rows' in target && target.rows.length === 1 ? 'Retry webhook' : 'Retry webhooks'}
      closeOnClickOutside={false}
    >
      {target &&
        ('rows' in target ? (
          <Chosen rows={target.rows} {...props} />
        ) : (
          <Matching filter={target.filter} what={target.what} {...props} />
        ))}
    </Modal>
  );
}

const MOST = 10_000;
const means = (number: number) =>
  `${number === 1 ? 'It' : 'Each'} is sent to its destination once, now. If that fails, it becomes a dead letter again.`;

/** Retries all matching webhooks by one mutation, which does nothing if their number has changed. */
function Matching({
  filter,
  what = 'matching the filters',
  close,
  done,
}: Props & { filter: ServerFilter; what?: string }) {
  const { slug, id } = useOrganization();
  const { data, error, again } = useAsk(RetryableQuery, { slug, filter });
  const [{ fetching, error: refused }, retry] = useMutation(RetryMatchingMutation);
  const [reason, setReason] = useState('');
  const number = data?.organization?.retryableCount;
  const go = async () => {
    if (number === undefined) return;
    const input = { organizationId: id, filter, expectedCount: number, reason: reason.trim() || null };
    const { data: result } = await retry({ input });
    if (!result) return;
    const { retriedCount, skippedCount } = result.retryWebhooks;
    notifications.show({
      title: `Retrying ${plural(retriedCount, 'webhook')}`,
      message:
        skippedCount > 0
          ? `${count(skippedCount)} skipped: someone else just retried them.`
          : 'Their attempts have started.',
    });
    done();
    close();
  };
  return (
    <Stack gap="sm">
      {number === undefined && !error && <Skeleton height={22} width="70%" />}
      {number !== undefined && number <= MOST && (
        <Text size="sm">
          <b>{plural(number, 'failed webhook')}</b> {what} will be retried. {means(number)}
        </Text>
      )}
      {filter.text && (
        <Text size="xs" className="quiet">
          For retries, the search covers IDs and event types only, not payloads.
        </Text>
      )}
      {number !== undefined && number > MOST && (
        <Alert color="yellow">
          More than {count(MOST)} webhooks match. Narrow the filters, for example by time, and retry in batches.
        </Alert>
      )}
      {number === 0 && (
        <Text size="sm">
          There is nothing to retry. Rejected webhooks are never processed, and webhooks whose body is no longer kept
          can't be sent.
        </Text>
      )}
      <Reason value={reason} set={setReason} />
      {(error ?? refused) && (
        <Alert color="red" role="alert">
          {sentence(error ?? refused)}
          <Button size="compact-xs" variant="subtle" onClick={again}>
            Count again
          </Button>
        </Alert>
      )}
      <Group justify="flex-end">
        <Button variant="default" onClick={close}>
          Cancel
        </Button>
        <Button data-autofocus loading={fetching} disabled={!number || number > MOST} onClick={() => void go()}>
          {number ? `Retry ${plural(number, 'webhook')}` : 'Retry webhooks'}
        </Button>
      </Group>
    </Stack>
  );
}

/** Retries the selected webhooks, one by one. */
function Chosen({ rows, close, done, onRow }: Props & { rows: readonly Pick<WebhookRow, 'id' | 'webhookId'>[] }) {
  const retryEach = useRetryEach();
  const [reason, setReason] = useState('');
  const [progress, setProgress] = useState<number>();
  const [outcome, setOutcome] = useState<Outcome>();
  const stop = useRef<AbortController>(undefined);
  const busy = progress !== undefined && !outcome;
  const go = async () => {
    stop.current = new AbortController();
    setProgress(0);
    const result = await retryEach(rows, reason, { onRow, onProgress: setProgress, signal: stop.current.signal });
    if (result.refused.length > 0) {
      setOutcome(result);
      return;
    }
    notifications.show({
      title: `Retrying ${plural(result.retried, 'webhook')}`,
      message: 'Their attempts have started.',
    });
    done();
    close();
  };
  if (outcome) {
    return (
      <Stack gap="sm">
        <Alert
          color="yellow"
          role="alert"
          title={`Retrying ${plural(outcome.retried, 'webhook')}; ${count(outcome.refused.length)} couldn't be retried`}
        >
          {[...new Set(outcome.refused.map(({ why }) => why))].slice(0, 5).map((why) => (
            <Text key={why} size="sm">
              {why}
            </Text>
          ))}
        </Alert>
        <Group justify="flex-end">
          <Button
            onClick={() => {
              done();
              close();
            }}
          >
            Close
          </Button>
        </Group>
      </Stack>
    );
  }
  return (
    <Stack gap="sm">
      <Text size="sm">
        <b>{plural(rows.length, 'failed webhook')}</b> will be retried. {means(rows.length)}
      </Text>
      <Reason value={reason} set={setReason} disabled={busy} />
      {progress !== undefined && <Progress value={(progress / rows.length) * 100} aria-label="Retry progress" />}
      <Group justify="flex-end">
        <Button variant="default" onClick={() => (busy ? stop.current?.abort() : close())}>
          {busy ? `Stop (${count(progress)} retried)` : 'Cancel'}
        </Button>
        <Button data-autofocus loading={busy} onClick={() => void go()}>
          Retry {plural(rows.length, 'webhook')}
        </Button>
      </Group>
    </Stack>
  );
}

export function Reason({ value, set, disabled }: { value: string; set: (value: string) => void; disabled?: boolean }) {
  return (
    <Textarea
      label="Reason"
      description="Optional. Recorded in the audit trail with your name."
      placeholder="The destination is fixed"
      maxLength={500}
      autosize
      minRows={1}
      maxRows={4}
      disabled={disabled}
      value={value}
      onChange={(event) => set(event.currentTarget.value)}
    />
  );
}
