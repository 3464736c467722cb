// One webhook, kept up to date.
import { useEffect, useMemo, useRef, useState } from 'react';
import { useSubscription } from 'urql';

import { useAsk } from '../../../api/ask';
import { useConnection } from '../../../api/connection';
import { WebhookChangedSubscription } from '../queries';
import { type Body, readBody, type Webhook, WebhookQuery } from './queries';

export type Watched = { webhook: Webhook | null | undefined; error: Error | undefined; again: () => void };

/** `webhook` is null if it does not exist. */
export function useWebhook(slug: string, organizationId: string, webhookId: string): Watched {
  const isId = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(webhookId);
  const { data, error, again } = useAsk(WebhookQuery, isId ? { slug, webhookId } : null);
  const webhook = isId ? data && (data.organization?.webhook ?? null) : null;
  useChanges(organizationId, webhook?.receivedAt, again);
  return { webhook, error, again };
}

/** Subscriptions cannot filter by ID, but few webhooks are received in the same millisecond. */
function useChanges(organizationId: string, receivedAt: string | undefined, changed: () => void): void {
  const variables = useMemo(() => {
    const at = receivedAt ? Date.parse(receivedAt) : 0;
    const filter = { receivedFrom: new Date(at).toISOString(), receivedTo: new Date(at + 1).toISOString() };
    return { organizationId, filter };
  }, [organizationId, receivedAt]);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const soon = () => {
    // The start and the end of an attempt arrive as two changes.
    timer.current ??= setTimeout(() => {
      timer.current = undefined;
      changed();
    }, 120);
  };
  useSubscription({ query: WebhookChangedSubscription, variables, pause: !receivedAt }, (_, data) => {
    soon();
    return data;
  });
  const { reconnections } = useConnection();
  const seen = useRef(reconnections);
  useEffect(() => {
    if (seen.current !== reconnections) changed();
    seen.current = reconnections;
  }, [reconnections, changed]);
  useEffect(() => () => clearTimeout(timer.current), []);
}

/** The body, loaded when it is needed, and released with the component. */
export function useBody(
  slug: string,
  webhookId: string | undefined,
): { body: Body | undefined; error: Error | undefined; again: () => void } {
  const [state, setState] = useState<{ id: string; body?: Body; error?: Error }>();
  const [turn, setTurn] = useState(0);
  // biome-ignore lint/correctness/useExhaustiveDependencies: `turn` is what asks once more
  useEffect(() => {
    if (!webhookId) return;
    let left = false;
    readBody(slug, webhookId).then(
      (body) => !left && setState({ id: webhookId, body }),
      (error: Error) => !left && setState({ id: webhookId, error }),
    );
    return () => {
      left = true;
    };
  }, [slug, webhookId, turn]);
  const known = state?.id === webhookId ? state : undefined;
  return { body: known?.body, error: known?.error, again: () => setTurn((before) => before + 1) };
}
