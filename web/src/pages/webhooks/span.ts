// The time ranges of the bars in the chart above the list.
import type { Filter } from './filter';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** Round lengths of time. */
const steps = [
  1_000,
  5_000,
  15_000,
  30_000,
  MINUTE,
  2 * MINUTE,
  5 * MINUTE,
  10 * MINUTE,
  15 * MINUTE,
  30 * MINUTE,
  HOUR,
  2 * HOUR,
  3 * HOUR,
  6 * HOUR,
  12 * HOUR,
  DAY,
  2 * DAY,
  7 * DAY,
  14 * DAY,
  28 * DAY,
];
/** Maximum number of bars. */
const MOST = 96;
/** The default time range. */
const USUAL = DAY;

export type Span = {
  from: number;
  to: number;
  step: number;
  buckets: number /** Nobody chose a time. */;
  usual: boolean;
};

export function spanOf(filter: Pick<Filter, 'from' | 'to'>, now: number): Span {
  const to = filter.to ?? Math.max(now, (filter.from ?? 0) + 1);
  const from = filter.from ?? to - USUAL;
  const length = Math.max(to - from, 1_000);
  const step = steps.find((each) => length / each <= MOST) ?? Math.ceil(length / MOST / DAY) * DAY;
  const start = Math.floor(from / step) * step;
  const end = Math.max(Math.ceil(to / step) * step, start + step);
  return {
    from: start,
    to: end,
    step,
    buckets: Math.round((end - start) / step),
    usual: filter.from === undefined && filter.to === undefined,
  };
}
