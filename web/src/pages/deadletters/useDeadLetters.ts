// The dead letters of an organization, kept up to date.
import { useCallback, useEffect, useMemo, useRef, useState } from 'react';
import { useSubscription } from 'urql';

import { useAsk } from '../../api/ask';
import { useConnection } from '../../api/connection';
import { graphql } from '../../api/graphql';
import { RowFields, WebhookChangedSubscription, type WebhookRow } from '../webhooks/queries';
import { changed, type Group, grouped, joined, type Known, nothing, read, waiting } from './groups';

/** Maximum number of dead letters that are loaded, the newest first. */
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

const GroupsQuery = graphql(`
  query DeadLetterGroups($slug: String!) {
    organization(slug: $slug) {
      id
      deadLetterGroups {
        groups { provider { id providerName } errorMessage count oldest newest }
        total truncated
      }
    }
  }
`);

export type DeadLetters = {
  known: Known;
  groups: readonly Group[];
  total: number;
  loading: boolean;
  error: Error | undefined;
  /** There are more than are loaded. */
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

  const more = answer?.pageInfo.hasNextPage ?? false;
  // While all of them are loaded, they are counted here, without a delay.
  const counted = useAsk(GroupsQuery, more ? { slug } : null);
  const byServer = counted.data?.organization?.deadLetterGroups;
  const [groups, total] = useMemo(() => {
    const local = grouped(waiting(known));
    if (!more || !byServer) return [local, local.reduce((sum, group) => sum + group.count, 0)];
    return [
      joined(
        byServer.groups.map(({ errorMessage, ...group }) => ({ ...group, error: errorMessage })),
        local,
      ),
      byServer.total,
    ];
  }, [known, more, byServer]);
  const countAgain = counted.again;

  const queue = useRef(new Map<string, WebhookRow>());
  const missed = useRef(false);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const soon = useCallback(() => {
    timer.current ??= setTimeout(() => {
      timer.current = undefined;
      const rows = [...queue.current.values()];
      queue.current.clear();
      setKnown((before) => changed(before, rows));
      if (missed.current) {
        again();
        countAgain();
      }
      missed.current = false;
    }, FLUSH_MS);
  }, [again, countAgain]);
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
  const reload = useCallback(() => {
    again();
    countAgain();
  }, [again, countAgain]);
  return { known, groups, total, loading, error, more, reload, replace, forget };
}
