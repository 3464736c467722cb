// A period as charts: volume, results and latency.
import { SimpleGrid, Stack } from '@mantine/core';
import { useMemo } from 'react';

import { graphql, type ResultOf } from '../../api/graphql';
import { count, duration, percent, plural } from '../../format';
import { Card } from '../../ui/Card';
import { Legend } from '../../ui/Legend';
import { TimeChart } from '../../ui/TimeChart';
import { CountsFragment, Figures } from './Figures';
import type { Period } from './period';

export const AnalyticsFragment = graphql(
  `
    fragment Series on Analytics @_unmask {
      buckets { start counts { ...Counts } }
      totals { ...Counts }
    }
  `,
  [CountsFragment],
);

export const TotalsFragment = graphql(
  `
    fragment Totals on Analytics @_unmask {
      totals { ...Counts }
    }
  `,
  [CountsFragment],
);

type Props = {
  current: ResultOf<typeof AnalyticsFragment>;
  previous: ResultOf<typeof TotalsFragment>;
  period: Period;
  onZoom: (from: number, to: number) => void;
  /** A bucket was clicked. */
  onPick?: (start: number) => void;
};

export function Series({ current, previous, period, onZoom, onPick }: Props) {
  const starts = useMemo(() => current.buckets.map(({ start }) => Date.parse(start)), [current]);
  const [volume, outcomes, rate, latency] = useMemo(() => {
    const of = (value: (counts: (typeof current.buckets)[number]['counts']) => number | null) =>
      current.buckets.map(({ counts }) => value(counts));
    return [
      [
        { label: 'Received', color: 'var(--processing)', values: of((c) => c.received) },
        { label: 'Duplicates', color: 'var(--pending)', values: of((c) => c.duplicates) },
        { label: 'Rejected', color: 'var(--rejected)', values: of((c) => c.rejected) },
      ],
      [
        { label: 'Succeeded', color: 'var(--success)', values: of((c) => c.succeeded) },
        { label: 'Failed', color: 'var(--failed)', values: of((c) => c.failed) },
        { label: 'Dead letters', color: 'var(--dead)', values: of((c) => c.deadLettered) },
      ],
      [{ label: 'Success rate', color: 'var(--success)', values: of((c) => c.successRate) }],
      [
        { label: 'p50', color: 'var(--success)', values: of((c) => c.latency.p50) },
        { label: 'p95', color: 'var(--pending)', values: of((c) => c.latency.p95) },
        { label: 'p99', color: 'var(--failed)', values: of((c) => c.latency.p99) },
      ],
    ];
  }, [current]);
  const { totals } = current;
  const shared = { starts, step: period.step, height: 180, onZoom, onPick };
  return (
    <Stack gap="md">
      <Figures now={totals} before={previous.totals} />
      <SimpleGrid cols={{ base: 1, md: 2 }} spacing="md">
        <Card title="Volume" actions={<Legend of={volume} />}>
          <TimeChart
            {...shared}
            kind="bars"
            series={volume}
            format={count}
            summary={`${count(totals.received)} received, ${count(totals.duplicates)} duplicates, ${count(totals.rejected)} rejected`}
          />
        </Card>
        <Card title="Attempts" actions={<Legend of={outcomes} />}>
          <TimeChart
            {...shared}
            kind="bars"
            series={outcomes}
            format={count}
            summary={`${count(totals.succeeded)} succeeded, ${count(totals.failed)} failed, ${plural(totals.deadLettered, 'dead letter')}`}
          />
        </Card>
        <Card title="Success rate">
          <TimeChart
            {...shared}
            kind="lines"
            series={rate}
            format={percent}
            summary={`Success rate ${told(totals.successRate, percent)}`}
          />
        </Card>
        <Card title="Latency" actions={<Legend of={latency} />}>
          <TimeChart
            {...shared}
            kind="lines"
            series={latency}
            format={duration}
            summary={`Latency: median ${duration(totals.latency.p50)}, 99th percentile ${duration(totals.latency.p99)}`}
          />
        </Card>
      </SimpleGrid>
    </Stack>
  );
}

function told(value: number | null, format: (value: number) => string): string {
  return value === null ? 'unknown' : format(value);
}
