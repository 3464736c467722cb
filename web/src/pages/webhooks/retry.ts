// Retries one by one, so that each shows its result, and a failure does not stop the others.
import { useCallback } from 'react';
import { useClient } from 'urql';

import { sentence } from '../../api/errors';
import { RetryMutation, type WebhookRow } from './queries';

/** True if a person can request another attempt: it failed, and it was verified. */
export function retryable(row: Pick<WebhookRow, 'status' | 'rejection'>): boolean {
  return row.status === 'FAILED' && !row.rejection;
}

export type Outcome = { retried: number; refused: { id: string; why: string }[] };

/** Retries a few at a time. `signal` stops before the next. */
export function useRetryEach() {
  const client = useClient();
  return useCallback(
    async (
      rows: readonly Pick<WebhookRow, 'id' | 'webhookId'>[],
      reason: string,
      {
        onRow,
        onProgress,
        signal,
      }: { onRow?: (row: WebhookRow) => void; onProgress?: (done: number) => void; signal?: AbortSignal } = {},
    ): Promise<Outcome> => {
      const outcome: Outcome = { retried: 0, refused: [] };
      const queue = [...rows];
      const worker = async () => {
        for (let row = queue.shift(); row && !signal?.aborted; row = queue.shift()) {
          const input = { webhookId: row.id, reason: reason.trim() || null };
          const { data, error } = await client.mutation(RetryMutation, { input }).toPromise();
          if (data) {
            outcome.retried += 1;
            onRow?.(data.retryWebhook.webhook);
          } else {
            outcome.refused.push({ id: row.webhookId, why: sentence(error) });
          }
          onProgress?.(outcome.retried + outcome.refused.length);
        }
      };
      await Promise.all(Array.from({ length: 4 }, worker));
      return outcome;
    },
    [client],
  );
}
