// Numbers of a period beside those of the one before it.
import { Group, Paper, SimpleGrid, Text, Tooltip } from '@mantine/core';
import { IconArrowDownRight, IconArrowUpRight } from '@tabler/icons-react';

import { graphql, type ResultOf } from '../../api/graphql';
import { compact, duration, percent } from '../../format';

export const CountsFragment = graphql(`
  fragment Counts on AnalyticsCounts @_unmask {
    received
    rejected
    duplicates
    succeeded
    failed
    deadLettered
    retries
    successRate
    latency { p50 p95 p99 }
  }
`);

export type Counts = ResultOf<typeof CountsFragment>;

type Figure = {
  label: string;
  means: string;
  value: (counts: Counts) => number | null;
  format: (value: number) => string;
  /** Undefined if neither is better. */
  better?: 'more' | 'less';
};

const figures: readonly Figure[] = [
  { label: 'Received', means: 'Webhooks accepted, excluding duplicates', value: (c) => c.received, format: compact },
  {
    label: 'Success rate',
    means: 'Successful attempts as a share of finished attempts',
    value: (c) => c.successRate,
    format: percent,
    better: 'more',
  },
  {
    label: 'Failed attempts',
    means: 'Failed attempts; most are retried',
    value: (c) => c.failed,
    format: compact,
    better: 'less',
  },
  {
    label: 'Retries',
    means: "Attempts after a webhook's first",
    value: (c) => c.retries,
    format: compact,
    better: 'less',
  },
  {
    label: 'Dead letters',
    means: 'Webhooks that failed every attempt and need attention',
    value: (c) => c.deadLettered,
    format: compact,
    better: 'less',
  },
  {
    label: 'Rejected',
    means: 'Requests rejected on receipt',
    value: (c) => c.rejected,
    format: compact,
    better: 'less',
  },
  {
    label: 'Median latency',
    means: 'Time from receipt to successful processing',
    value: (c) => c.latency.p50,
    format: duration,
    better: 'less',
  },
  {
    label: 'p99 latency',
    means: '99 % of webhooks are processed within this time',
    value: (c) => c.latency.p99,
    format: duration,
    better: 'less',
  },
];

export function Figures({ now, before }: { now: Counts; before: Counts }) {
  return (
    <SimpleGrid cols={{ base: 2, sm: 4 }} spacing="sm">
      {figures.map((figure) => (
        <Paper key={figure.label} withBorder p="sm" bg="var(--surface)">
          <Tooltip label={figure.means}>
            <Text size="xs" className="quiet">
              {figure.label}
            </Text>
          </Tooltip>
          <Group gap="xs" align="baseline">
            <Text fz={22} fw={600}>
              {told(figure, now)}
            </Text>
            <Change figure={figure} now={now} before={before} />
          </Group>
        </Paper>
      ))}
    </SimpleGrid>
  );
}

function told({ value, format }: Figure, counts: Counts): string {
  const known = value(counts);
  return known === null ? '–' : format(known);
}

function Change({ figure, now, before }: { figure: Figure; now: Counts; before: Counts }) {
  const [is, was] = [figure.value(now), figure.value(before)];
  if (is === null || was === null || is === was) return null;
  const up = is > was;
  const good = figure.better === undefined ? undefined : (figure.better === 'more') === up;
  const color = good === undefined ? 'var(--quiet)' : good ? 'var(--success)' : 'var(--failed)';
  const share =
    was === 0
      ? 'new'
      : figure.format === percent
        ? `${((is - was) * 100).toFixed(1)} pp`
        : `${Math.abs(((is - was) / was) * 100).toFixed(0)} %`;
  const Arrow = up ? IconArrowUpRight : IconArrowDownRight;
  return (
    <Tooltip label={`${told(figure, before)} in the previous period`}>
      <Group gap={2} c={color} wrap="nowrap">
        <Arrow size={14} aria-label={up ? 'up' : 'down'} />
        <Text span size="xs" c={color}>
          {share}
        </Text>
      </Group>
    </Tooltip>
  );
}
