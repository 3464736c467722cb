// The dead letters of an organization, as they come and go.
import { useCallback, useEffect, useMemo, useRef, useState } from 'react';
import { useSubscription } from 'urql';

import { useAsk } from '../../api/ask';
import { useConnection } from '../../api/connection';
import { graphql } from '../../api/graphql';
import { RowFields, WebhookChangedSubscription, type WebhookRow } from '../webhooks/queries';
import { changed, type Known, nothing, read } from './groups';

/** Dead letters that are looked at here; with more, the newest. */
export const MOST = 1_000;
const FLUSH_MS = 250;

const DeadLettersQuery = graphql(
  `
  query DeadLetters($slug: String!, $first: Int!) {
    organization(slug: $slug) {
      id
      deadLetters(first: $first) {
        nodes { ...WebhookRow }
        pageInfo { hasNextPage }
      }
    }
  }
`,
  [RowFields],
);

export type DeadLetters = {
  known: Known;
  loading: boolean;
  error: Error | undefined;
  /** There are more than are at hand. */
  more: boolean;
  reload: () => void;
  replace: (row: WebhookRow) => void;
  forget: () => void;
};

export function useDeadLetters(slug: string, organizationId: string): DeadLetters {
  const { data, error, loading, again } = useAsk(DeadLettersQuery, { slug, first: MOST });
  const [known, setKnown] = useState(nothing);
  const answer = data?.organization?.deadLetters;
  useEffect(() => {
    if (answer) setKnown((before) => read(before, answer.nodes));
  }, [answer]);

  const queue = useRef(new Map<string, WebhookRow>());
  const missed = useRef(false);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const soon = useCallback(() => {
    timer.current ??= setTimeout(() => {
      timer.current = undefined;
      const rows = [...queue.current.values()];
      queue.current.clear();
      setKnown((before) => changed(before, rows));
      if (missed.current) again();
      missed.current = false;
    }, FLUSH_MS);
  }, [again]);
  useEffect(() => () => clearTimeout(timer.current), []);

  const variables = useMemo(() => ({ organizationId, filter: { signatureValid: true } }), [organizationId]);
  useSubscription({ query: WebhookChangedSubscription, variables }, (_, change) => {
    const { webhook } = change.webhookChanged;
    if (webhook && queue.current.size < MOST) queue.current.set(webhook.webhookId, webhook);
    else missed.current = true;
    soon();
    return change;
  });
  const { reconnections } = useConnection();
  const seen = useRef(reconnections);
  useEffect(() => {
    if (seen.current === reconnections) return;
    seen.current = reconnections;
    missed.current = true;
    soon();
  }, [reconnections, soon]);

  const replace = useCallback((row: WebhookRow) => setKnown((before) => changed(before, [row])), []);
  const forget = useCallback(() => setKnown((before) => ({ ...before, retried: new Set() })), []);
  return { known, loading, error, more: answer?.pageInfo.hasNextPage ?? false, reload: again, replace, forget };
}
