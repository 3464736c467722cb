// One run of the demo: the request, the response, and the events since.
import { useCallback, useEffect, useState } from 'react';
import { useClient } from 'urql';

import { sentence } from '../../api/errors';
import type { ProviderKind } from '../../ui/ProviderName';
import { DemoWebhookQuery, type Fault, type Seen, SendDemoWebhook, type Sent } from './queries';

/** Milliseconds between two polls, and the maximum number of polls. */
const PAUSE = 250;
const LOOKS = 120;

export type Draft = { providerName: ProviderKind; eventType: string; body: string };

export type Try = {
  draft: Draft;
  fault: Fault;
  sent: Sent;
  seen?: Seen;
};

export function useDemo() {
  const client = useClient();
  const [last, setLast] = useState<Try>();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string>();

  const send = useCallback(
    async (draft: Draft, fault: Fault, before: Try | undefined) => {
      setBusy(true);
      setError(undefined);
      const repeats = fault === 'again' || fault === 'other-body';
      const input = {
        providerName: draft.providerName,
        eventType: repeats && before ? before.draft.eventType : draft.eventType,
        body: repeats && before ? bodyOf(before, fault) : draft.body,
        breakSignature: fault === 'broken',
        staleTimestamp: fault === 'stale',
        eventId: repeats ? (before?.sent.eventId ?? null) : null,
      };
      const { data, error: failed } = await client.mutation(SendDemoWebhook, { input }).toPromise();
      setBusy(false);
      if (failed || !data) setError(sentence(failed));
      else
        setLast({
          draft: repeats && before ? { ...before.draft, body: input.body } : draft,
          fault,
          sent: data.sendDemoWebhook,
        });
    },
    [client],
  );

  const id = last?.sent.webhookId;
  const sent = last?.sent;
  useEffect(() => {
    if (!id || !sent) return;
    let left = false;
    const look = async () => {
      for (let looks = 0; looks < LOOKS && !left; looks += 1) {
        const { data } = await client
          .query(DemoWebhookQuery, { webhookId: id }, { requestPolicy: 'network-only' })
          .toPromise();
        const seen = data?.demoWebhook;
        if (left) return;
        if (seen) setLast((now) => (now?.sent === sent ? { ...now, seen } : now));
        const isOver = seen && (seen.rejection !== null || seen.status === 'SUCCESS' || seen.status === 'FAILED');
        if (isOver && (!sent.duplicate || seen.duplicateCount > 0)) return;
        await new Promise((resolve) => setTimeout(resolve, PAUSE));
      }
    };
    void look();
    return () => {
      left = true;
    };
  }, [client, id, sent]);

  return { last, busy, error, send, forget: () => setLast(undefined) };
}

/** The same body, or the same with a space at its end. */
function bodyOf(before: Try, fault: Fault): string {
  return fault === 'other-body' ? `${before.sent.request.body} ` : before.sent.request.body;
}
