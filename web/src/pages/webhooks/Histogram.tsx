// Webhooks over time, by status. Dragging selects a time range.
import { Button, Group, Skeleton, Text } from '@mantine/core';
import { useEffect, useMemo, useRef, useState } from 'react';

import { useAsk } from '../../api/ask';
import { sentence } from '../../api/errors';
import { graphql } from '../../api/graphql';
import { count, plural } from '../../format';
import { useOrganization } from '../../session/viewer';
import { useNow } from '../../time';
import { Legend } from '../../ui/Legend';
import { type WebhookStatus, webhookStatuses } from '../../ui/Status';
import { TimeChart } from '../../ui/TimeChart';
import { type Filter, serverFilter } from './filter';
import { spanOf } from './span';
import classes from './Webhooks.module.css';

const HistogramQuery = graphql(`
  query Histogram($slug: String!, $filter: WebhookFilter, $from: DateTime!, $to: DateTime!, $buckets: Int!) {
    organization(slug: $slug) {
      id
      histogram(filter: $filter, from: $from, to: $to, buckets: $buckets) {
        buckets { start success pending processing failed deadLettered rejected }
        total truncated
      }
    }
  }
`);

const HEIGHT = 104;
/** In the order of the stack, from the bottom. */
const stacked: readonly WebhookStatus[] = ['success', 'pending', 'processing', 'failed', 'dead', 'rejected'];
/** With live updates, it is counted again at most this often. */
const AGAIN_MS = 10_000;

/** `turn` changes with every change of the list; `moved` with every reading of it. */
export default function Histogram({
  filter,
  moved,
  turn,
  live,
  zoom,
}: {
  filter: Filter;
  moved: number;
  turn: unknown;
  live: boolean;
  zoom: (from: number, to: number) => void;
}) {
  const { slug } = useOrganization();
  const minute = Math.ceil(useNow() / 60_000) * 60_000;
  const span = useMemo(() => spanOf(filter, live ? minute : moved), [filter, live, minute, moved]);
  const asked = {
    slug,
    filter: serverFilter(filter),
    from: new Date(span.from).toISOString(),
    to: new Date(span.to).toISOString(),
    buckets: span.buckets,
  };
  const { data, error, again } = useAsk(HistogramQuery, filter.unknownProvider ? null : asked);
  useCountingAgain(turn, live, again);

  // The old chart stays until the new one arrives, so that nothing jumps.
  const found = data?.organization?.histogram;
  const [kept, setKept] = useState(found);
  if (found && found !== kept) setKept(found);
  const shown = found ?? kept;
  const [starts, series] = useMemo(() => {
    const buckets = shown?.buckets ?? [];
    return [
      buckets.map(({ start }) => Date.parse(start)),
      stacked.map((status) => {
        const { word, color, bucket } = webhookStatuses[status];
        return { label: word, color, values: buckets.map((each) => each[bucket]) };
      }),
    ];
  }, [shown]);
  const first = starts[0] ?? 0;
  const step = starts.length > 1 ? (starts[1] ?? 0) - first : span.step;

  return (
    <div className={classes.chart}>
      <Group justify="space-between" gap="2px 8px" mb={2} mih={18}>
        <Text size="xs" className="quiet cut" aria-live="polite">
          {shown
            ? `${shown.truncated ? 'More than ' : ''}${plural(shown.total, 'webhook')} ${span.usual ? 'in the last 24 hours' : 'in this time range'}`
            : ' '}
          {filter.text && ', searching IDs and event types only'}
        </Text>
        <Legend of={series.filter(({ values }) => values.some((value) => value > 0))} />
      </Group>
      {error && !shown ? (
        <Group h={HEIGHT} justify="center" gap="xs">
          <Text size="sm" className="quiet">
            {sentence(error)}
          </Text>
          <Button size="compact-xs" variant="default" onClick={again}>
            Try again
          </Button>
        </Group>
      ) : shown ? (
        <TimeChart
          starts={starts}
          step={step}
          series={series}
          kind="bars"
          height={HEIGHT}
          format={count}
          onZoom={(from, to) => zoom(Math.floor(from / step) * step, Math.ceil(to / step) * step)}
          onPick={(start) => zoom(start, start + step)}
          summary={`Webhooks over time: ${series.map(({ label, values }) => `${label} ${count(values.reduce((sum, value) => sum + value, 0))}`).join(', ')}`}
        />
      ) : (
        <Skeleton height={HEIGHT} data-loading />
      )}
    </div>
  );
}

function useCountingAgain(turn: unknown, live: boolean, again: () => void): void {
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const first = useRef(true);
  // biome-ignore lint/correctness/useExhaustiveDependencies: `turn` is what asks to count again
  useEffect(() => {
    if (first.current || !live) {
      first.current = false;
      return;
    }
    timer.current ??= setTimeout(() => {
      timer.current = undefined;
      if (document.visibilityState === 'visible') again();
    }, AGAIN_MS);
  }, [turn, live, again]);
  useEffect(
    () => () => {
      clearTimeout(timer.current);
      timer.current = undefined;
    },
    [],
  );
}
