// Times, in UTC or local as the person likes, relative where that reads better. One clock ticks for all of them.
import { Text, type TextProps, Tooltip } from '@mantine/core';
import { useSyncExternalStore } from 'react';

const KEY = 'hookledger.zone';
type Zone = 'utc' | 'local';
const zoneListeners = new Set<() => void>();

export function zone(): Zone {
  return localStorage.getItem(KEY) === 'local' ? 'local' : 'utc';
}

export function setZone(next: Zone): void {
  localStorage.setItem(KEY, next);
  for (const listener of zoneListeners) listener();
}

export function useZone(): Zone {
  return useSyncExternalStore((listener) => {
    zoneListeners.add(listener);
    return () => zoneListeners.delete(listener);
  }, zone);
}

let now = Date.now();
const tickListeners = new Set<() => void>();
let ticker: ReturnType<typeof setInterval> | undefined;

// Outside the component: a new function at every render would restart the clock at every render.
function subscribeToClock(listener: () => void): () => void {
  tickListeners.add(listener);
  // It stood still while the page was hidden.
  if (!ticker) now = Date.now();
  ticker ??= setInterval(() => {
    now = Date.now();
    for (const each of tickListeners) each();
  }, 5000);
  return () => {
    tickListeners.delete(listener);
    if (tickListeners.size === 0 && ticker) {
      clearInterval(ticker);
      ticker = undefined;
    }
  };
}

/** The time, updated every 5 seconds while a component uses it. */
export function useNow(): number {
  return useSyncExternalStore(subscribeToClock, () => now);
}

const two = (value: number, width = 2) => String(value).padStart(width, '0');

/** `2026-01-05 15:40:15.123` in the zone; without milliseconds unless asked for. */
export function absolute(at: string | number, where: Zone, milliseconds = false): string {
  const date = new Date(at);
  const utc = where === 'utc';
  const day = utc
    ? `${date.getUTCFullYear()}-${two(date.getUTCMonth() + 1)}-${two(date.getUTCDate())}`
    : `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const time = utc
    ? `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())}`
    : `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return `${day} ${time}${milliseconds ? `.${two(date.getUTCMilliseconds(), 3)}` : ''}${utc ? ' UTC' : ''}`;
}

const steps: readonly [number, string][] = [
  [86_400_000, 'd'],
  [3_600_000, 'h'],
  [60_000, 'min'],
  [1000, 's'],
];

/** `12 s ago`, `in 5 min`. */
export function relative(at: string | number, from: number): string {
  const difference = new Date(at).getTime() - from;
  const size = Math.abs(difference);
  if (size < 5000) return 'just now';
  const [step, unit] = steps.find(([length]) => size >= length) ?? [1000, 's'];
  const count = Math.floor(size / step);
  return difference < 0 ? `${count} ${unit} ago` : `in ${count} ${unit}`;
}

/** A moment: relative, with the exact time on hover; or the exact time, with the relative one on hover. */
export function When({ at, exact = false, ...props }: TextProps & { at: string | null | undefined; exact?: boolean }) {
  const current = useNow();
  const where = useZone();
  if (!at)
    return (
      <Text span size="sm" className="quiet" {...props}>
        –
      </Text>
    );
  const told = absolute(at, where);
  const [shown, hover] = exact ? [told, relative(at, current)] : [relative(at, current), absolute(at, where, true)];
  return (
    <Tooltip label={hover}>
      <Text span size="sm" {...props} style={{ whiteSpace: 'nowrap' }}>
        <time dateTime={at}>{shown}</time>
      </Text>
    </Tooltip>
  );
}

/** The same without a tooltip component, which is cheap enough for many rows. */
export function Ago({ at }: { at: string }) {
  const current = useNow();
  const where = useZone();
  return (
    <time dateTime={at} title={absolute(at, where, true)}>
      {relative(at, Math.max(current, Date.parse(at)))}
    </time>
  );
}
