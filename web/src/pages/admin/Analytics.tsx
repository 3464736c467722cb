import { useQuery } from 'urql';

import { graphql } from '../../api/graphql';
import { ErrorCard } from '../../ui/ErrorCard';
import { Page } from '../../ui/Page';
import { PageLoading } from '../../ui/PageLoading';
import { PeriodChoice } from '../analytics/PeriodChoice';
import { usePeriod } from '../analytics/period';
import { AnalyticsFragment, Series, TotalsFragment } from '../analytics/Series';

const Query = graphql(
  `
    query SystemAnalytics($before: DateTime!, $from: DateTime!, $to: DateTime!, $grain: Grain!) {
      current: analytics(from: $from, to: $to, grain: $grain) { ...Series }
      previous: analytics(from: $before, to: $from, grain: DAY) { ...Totals }
    }
  `,
  [AnalyticsFragment, TotalsFragment],
);

/** All organizations together. */
export default function SystemAnalytics() {
  const chosen = usePeriod();
  const { before, from, to, grain } = chosen.period;
  const [{ data, error, fetching }, again] = useQuery({ query: Query, variables: { before, from, to, grain } });
  return (
    <Page
      title="System analytics"
      lead="All organizations combined. Drag across a chart to zoom in."
      actions={<PeriodChoice of={chosen} />}
    >
      {error && !fetching && !data && (
        <ErrorCard error={error} again={() => again({ requestPolicy: 'network-only' })} />
      )}
      {data && <Series current={data.current} previous={data.previous} period={chosen.period} onZoom={chosen.zoom} />}
      {!data && !error && <PageLoading />}
    </Page>
  );
}
