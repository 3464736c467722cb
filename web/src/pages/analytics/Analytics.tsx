import { Select } from '@mantine/core';
import { useQuery } from 'urql';
import { useLocation } from 'wouter';

import { graphql } from '../../api/graphql';
import { useOrganization } from '../../session/viewer';
import { ErrorCard } from '../../ui/ErrorCard';
import { Page } from '../../ui/Page';
import { PageLoading } from '../../ui/PageLoading';
import { providers as names } from '../../ui/ProviderName';
import { useSearch } from '../../url';
import { webhooksHref } from '../webhooks/filter';
import { PeriodChoice } from './PeriodChoice';
import { usePeriod } from './period';
import { Rankings } from './Rankings';
import { AnalyticsFragment, Series, TotalsFragment } from './Series';

const Query = graphql(
  `
    query Analytics($slug: String!, $before: DateTime!, $from: DateTime!, $to: DateTime!, $grain: Grain!, $provider: ID) {
      organization(slug: $slug) {
        id
        providers { id providerName deletedAt }
        current: analytics(from: $from, to: $to, grain: $grain, providerId: $provider) { ...Series }
        previous: analytics(from: $before, to: $from, grain: DAY, providerId: $provider) { ...Totals }
      }
    }
  `,
  [AnalyticsFragment, TotalsFragment],
);

export default function Analytics() {
  const { slug, base } = useOrganization();
  const [{ provider }, change] = useSearch();
  const [, go] = useLocation();
  const chosen = usePeriod();
  const { before, from, to, grain, step } = chosen.period;
  const [{ data, error, fetching }, again] = useQuery({
    query: Query,
    variables: { slug, before, from, to, grain, provider: provider ?? null },
  });
  const organization = data?.organization;
  const pick = (start: number) =>
    go(webhooksHref(base, { from: new Date(start).toISOString(), to: new Date(start + step).toISOString(), provider }));
  return (
    <Page
      title="Analytics"
      lead="Drag across a chart to zoom in, or click a bar to see its webhooks. Arrows compare with the previous period."
      actions={
        <>
          <Select
            size="xs"
            w={180}
            aria-label="Provider"
            placeholder="All providers"
            clearable
            value={provider ?? null}
            onChange={(next) => change({ provider: next ?? undefined })}
            data={(organization?.providers ?? []).map(({ id, providerName, deletedAt }) => ({
              value: id,
              label: names[providerName].word + (deletedAt ? ' (deleted)' : ''),
            }))}
          />
          <PeriodChoice of={chosen} />
        </>
      }
    >
      {error && !fetching && !data && (
        <ErrorCard error={error} again={() => again({ requestPolicy: 'network-only' })} />
      )}
      {organization && (
        <Series
          current={organization.current}
          previous={organization.previous}
          period={chosen.period}
          onZoom={chosen.zoom}
          onPick={pick}
        />
      )}
      {organization && <Rankings period={chosen.period} provider={provider} />}
      {!organization && !error && <PageLoading />}
    </Page>
  );
}
