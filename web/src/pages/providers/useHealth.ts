// A provider's health over the last day.
import { useMemo } from 'react';
import { useQuery } from 'urql';

import { graphql } from '../../api/graphql';
import { useOrganization } from '../../session/viewer';
import { useNow } from '../../time';
import { CountsFragment } from '../analytics/Figures';
import { periodOf } from '../analytics/period';

const DAY = 86_400_000;
const MINUTE = 60_000;

const Query = graphql(
  `
    query ProviderHealth($slug: String!, $provider: ID!, $from: DateTime!, $to: DateTime!, $grain: Grain!) {
      organization(slug: $slug) {
        id
        analytics(from: $from, to: $to, grain: $grain, providerId: $provider) {
          buckets { start counts { ...Counts } }
          totals { ...Counts }
        }
        webhooks(first: 1, filter: { providerId: $provider }) { nodes { id webhookId receivedAt } }
      }
    }
  `,
  [CountsFragment],
);

/** The counts of the last 24 hours by the hour, and the newest webhook. Refreshed every minute. */
export function useHealth(provider: string) {
  const { slug } = useOrganization();
  const minute = Math.ceil(useNow() / MINUTE) * MINUTE;
  const { from, to, grain, step } = useMemo(() => periodOf(minute - DAY, minute), [minute]);
  const [{ data, error, fetching }, again] = useQuery({ query: Query, variables: { slug, provider, from, to, grain } });
  const organization = data?.organization;
  return {
    analytics: organization?.analytics,
    last: organization?.webhooks.nodes[0],
    step,
    error: organization || fetching ? undefined : error,
    again: () => again({ requestPolicy: 'network-only' }),
  };
}
