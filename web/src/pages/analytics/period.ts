// The time ranges of analytics, and the buckets that fit them.
import { useMemo } from 'react';

import { useNow } from '../../time';
import { useSearch } from '../../url';

export type Grain = 'MINUTE' | 'HOUR' | 'DAY';
export type Period = {
  from: string;
  to: string;
  /** The preceding period of the same length. */
  before: string;
  grain: Grain;
  /** Length of a bucket, in milliseconds. */
  step: number;
};

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const steps: Record<Grain, number> = { MINUTE, HOUR, DAY };

export const spans = [
  { value: '1h', label: 'Hour', length: HOUR },
  { value: '24h', label: 'Day', length: DAY },
  { value: '7d', label: 'Week', length: 7 * DAY },
  { value: '30d', label: 'Month', length: 30 * DAY },
  { value: '90d', label: 'Quarter', length: 90 * DAY },
] as const;

export function periodOf(from: number, to: number): Period {
  const length = to - from;
  const grain: Grain = length <= 4 * HOUR ? 'MINUTE' : length <= 8 * DAY ? 'HOUR' : 'DAY';
  const step = steps[grain];
  const start = Math.floor(from / step) * step;
  const end = Math.max(Math.ceil(to / step) * step, start + step);
  const told = (at: number) => new Date(at).toISOString();
  return { from: told(start), to: told(end), before: told(start - (end - start)), grain, step };
}

/** The period of the address: a chosen span up to now, or one from a time to another. */
export function usePeriod(): {
  span: string;
  period: Period;
  choose: (span: string) => void;
  zoom: (from: number, to: number) => void;
} {
  const [search, change] = useSearch();
  const now = useNow();
  const span = search.from && search.to ? 'custom' : (search.span ?? '24h');
  // The period changes, and is queried again, every minute, not at every tick.
  const minute = Math.ceil(now / MINUTE) * MINUTE;
  const period = useMemo(() => {
    const [from, to] = [Date.parse(search.from ?? ''), Date.parse(search.to ?? '')];
    if (from < to) return periodOf(from, Math.min(to, from + 400 * DAY));
    const length = (spans.find(({ value }) => value === span) ?? spans[1]).length;
    return periodOf(minute - length, minute);
  }, [search.from, search.to, span, minute]);
  return {
    span,
    period,
    choose: (next) => change({ span: next === '24h' ? undefined : next, from: undefined, to: undefined }),
    zoom: (from, to) => change({ from: new Date(from).toISOString(), to: new Date(to).toISOString(), span: undefined }),
  };
}
