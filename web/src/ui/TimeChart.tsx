// A series over time: stacked bars or lines, drag to choose a span, click for a bucket. uPlot draws it on a canvas.
import 'uplot/dist/uPlot.min.css';

import { useComputedColorScheme } from '@mantine/core';
import { useElementSize } from '@mantine/hooks';
import { useEffect, useRef } from 'react';
import uPlot from 'uplot';

import { absolute, useZone } from '../time';
import classes from './TimeChart.module.css';

export type Series = {
  label: string;
  /** A colour of `main.css`, like `var(--failed)`. */
  color: string;
  values: readonly (number | null)[];
};

export type TimeChartProps = {
  /** Beginnings of the buckets, oldest first, in milliseconds since 1970. */
  starts: readonly number[];
  /** Length of a bucket in milliseconds. */
  step: number;
  series: readonly Series[];
  kind: 'bars' | 'lines';
  height?: number;
  /** Formats a value. */
  format?: (value: number) => string;
  /** A span was chosen: [from, to) in milliseconds. */
  onZoom?: (from: number, to: number) => void;
  /** A bucket was clicked: its beginning in milliseconds. */
  onPick?: (start: number) => void;
  /** One sentence for people who cannot see the chart. */
  summary: string;
};

export function TimeChart(props: TimeChartProps) {
  const { starts, step, series, kind, height = 120, summary } = props;
  const { ref: measure, width } = useElementSize();
  const place = useRef<HTMLDivElement>(null);
  const scheme = useComputedColorScheme('light');
  const zone = useZone();
  // Handlers may be new at every render. The chart is not drawn again for them.
  const latest = useRef(props);
  latest.current = props;

  // biome-ignore lint/correctness/useExhaustiveDependencies: another scheme has other colours
  useEffect(() => {
    const target = place.current;
    if (!target || width === 0 || starts.length === 0) return;
    const resolve = (color: string) => resolved(target, color);
    const quiet = resolve('var(--quiet)');
    const line = resolve('var(--line)');
    const told = (value: number) => (latest.current.format ?? String)(value);
    const xs = starts.map((start) => start / 1000);
    const ys = kind === 'bars' ? stacked(series) : series.map(({ values }) => [...values]);
    const bars = uPlot.paths.bars?.({ size: [0.86, 40], align: 1, gap: 0 });
    // The tallest bars are drawn first, so that each later one covers the lower part of the earlier.
    const order = series.map((_, index) => (kind === 'bars' ? series.length - 1 - index : index));
    const utc = (seconds: number) =>
      zone === 'utc' ? uPlot.tzDate(new Date(seconds * 1000), 'Etc/UTC') : new Date(seconds * 1000);
    const tip = document.createElement('div');
    tip.className = classes.tip ?? '';
    const chart = new uPlot(
      {
        width,
        height,
        tzDate: utc,
        legend: { show: false },
        padding: [8, 8, 0, 0],
        scales: {
          x: { time: true, range: [xs[0] ?? 0, (xs.at(-1) ?? 0) + step / 1000] },
          y: { range: (_, __, max) => [0, Math.max(max, 1) * 1.05] },
        },
        cursor: {
          drag: { x: Boolean(latest.current.onZoom), y: false, setScale: false },
          points: { show: kind === 'lines' },
          y: false,
        },
        axes: [
          {
            stroke: quiet,
            grid: { show: false },
            ticks: { stroke: line, size: 4 },
            font: '11px system-ui',
            size: 26,
            space: 72,
            values: (_, splits, __, ___, every) => splits.map((at) => clock(utc(at), every)),
          },
          {
            stroke: quiet,
            grid: { stroke: line, width: 1 },
            ticks: { show: false },
            font: '11px system-ui',
            size: 52,
            space: 28,
            values: (_, values) => values.map((value) => (value % 1 ? '' : told(value))),
          },
        ],
        series: [
          {},
          ...order.map((index) => {
            const color = resolve(series[index]?.color ?? 'var(--quiet)');
            return kind === 'bars'
              ? { fill: color, stroke: color, width: 0, paths: bars, points: { show: false } }
              : { stroke: color, width: 2, spanGaps: false, points: { size: 4, fill: color } };
          }),
        ],
        hooks: {
          setSelect: [
            (u) => {
              const { left, width: size } = u.select;
              if (size < 4) return;
              const from = Math.round(u.posToVal(left, 'x') * 1000);
              const to = Math.round(u.posToVal(left + size, 'x') * 1000);
              u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
              latest.current.onZoom?.(from, to);
            },
          ],
          setCursor: [(u) => showTip(u, tip, bucketAt(u, starts), latest.current, zone)],
        },
      },
      [xs, ...order.map((index) => ys[index] ?? [])] as uPlot.AlignedData,
      target,
    );
    chart.over.append(tip);
    const down = { x: 0 };
    const press = (event: MouseEvent) => {
      down.x = event.clientX;
    };
    const click = (event: MouseEvent) => {
      const index = bucketAt(chart, starts);
      const start = index === undefined ? undefined : starts[index];
      if (Math.abs(event.clientX - down.x) < 4 && start !== undefined) latest.current.onPick?.(start);
    };
    chart.over.addEventListener('mousedown', press);
    chart.over.addEventListener('click', click);
    if (latest.current.onPick || latest.current.onZoom) chart.over.style.cursor = 'pointer';
    return () => chart.destroy();
  }, [starts, step, series, kind, height, width, scheme, zone]);

  return (
    <div
      ref={measure}
      className={classes.chart}
      style={{ height }}
      role="img"
      aria-label={summary}
      data-chart={starts.length > 0 || undefined}
    >
      <div ref={place} />
    </div>
  );
}

/** `15:40`, or the date at midnight; `every` is the time between two labels, in seconds. */
function clock(date: Date, every: number): string {
  const two = (value: number) => String(value).padStart(2, '0');
  const time = `${two(date.getHours())}:${two(date.getMinutes())}`;
  const day = `${date.getDate()} ${date.toLocaleString('en-GB', { month: 'short' })}`;
  if (every >= 86_400) return day;
  if (every < 60) return `${time}:${two(date.getSeconds())}`;
  return time === '00:00' ? day : time;
}

/** The value of a CSS variable in this theme, because a canvas cannot use variables. */
function resolved(within: HTMLElement, color: string): string {
  const probe = document.createElement('span');
  probe.style.color = color;
  within.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

/** Each series on top of those before it. */
function stacked(series: readonly Series[]): number[][] {
  let below: number[] = [];
  return series.map(({ values }) => {
    below = values.map((value, index) => (value ?? 0) + (below[index] ?? 0));
    return below;
  });
}

function bucketAt(u: uPlot, starts: readonly number[]): number | undefined {
  const left = u.cursor.left ?? -1;
  if (left < 0) return undefined;
  const at = u.posToVal(left, 'x') * 1000;
  const after = starts.findIndex((start) => start > at);
  return after === -1 ? starts.length - 1 : Math.max(after - 1, 0);
}

function showTip(u: uPlot, tip: HTMLElement, index: number | undefined, props: TimeChartProps, zone: 'utc' | 'local') {
  const start = index === undefined ? undefined : props.starts[index];
  tip.hidden = start === undefined;
  if (index === undefined || start === undefined) return;
  const told = props.format ?? String;
  const line = (text: string, color?: string) => {
    const row = document.createElement('div');
    if (color) {
      const dot = document.createElement('span');
      dot.className = classes.dot ?? '';
      dot.style.background = color;
      row.append(dot);
    }
    row.append(text);
    return row;
  };
  const rows = props.series.flatMap(({ label, color, values }) => {
    const value = values[index];
    return value === null || value === undefined || (props.kind === 'bars' && value === 0)
      ? []
      : [line(`${label} ${told(value)}`, color)];
  });
  tip.replaceChildren(line(absolute(start, zone)), ...rows);
  const left = u.cursor.left ?? 0;
  const beyond = left > u.over.clientWidth / 2;
  tip.style.left = beyond ? '' : `${left + 12}px`;
  tip.style.right = beyond ? `${u.over.clientWidth - left + 12}px` : '';
}
