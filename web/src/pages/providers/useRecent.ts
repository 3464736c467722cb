// The newest webhooks of a provider, kept up to date.
import { useCallback, useState } from 'react';
import { useQuery, useSubscription } from 'urql';

import { useOrganization } from '../../session/viewer';
import { ChangedSubscription, RecentQuery, type Row } from './queries';

export function useRecent(provider: string, first: number) {
  const { id, slug } = useOrganization();
  const [live, setLive] = useState<ReadonlyMap<string, Row>>(new Map());
  const [{ data, error, fetching }, ask] = useQuery({
    query: RecentQuery,
    variables: { slug, provider, first },
    requestPolicy: 'network-only',
  });
  const again = useCallback(() => ask({ requestPolicy: 'network-only' }), [ask]);
  const put = useCallback(
    (row: Row) => setLive((before) => new Map(newest([...before.values(), row], first).map((each) => [each.id, each]))),
    [first],
  );
  useSubscription(
    { query: ChangedSubscription, variables: { organizationId: id, provider } },
    (_, { webhookChanged: { kind, webhook } }) => {
      if (webhook) put(webhook);
      if (kind === 'MISSED') again();
      return { webhookChanged: { kind, webhook } };
    },
  );
  const known = data?.organization?.webhooks.nodes;
  return {
    rows: newest([...(known ?? []), ...live.values()], first),
    isFirst: !known && fetching,
    error: known ? undefined : error,
    again,
    put,
  };
}

/** Each webhook once, in its latest state, newest first. */
function newest(rows: readonly Row[], count: number): Row[] {
  const byId = new Map<string, Row>();
  for (const row of rows) {
    const known = byId.get(row.id);
    if (!known || known.updatedAt <= row.updatedAt) byId.set(row.id, row);
  }
  return [...byId.values()].sort((a, b) => (a.receivedAt < b.receivedAt ? 1 : -1)).slice(0, count);
}
