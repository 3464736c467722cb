// A few bars in a line of text, without axes. The figures beside it give the numbers.

type Bar = { start: number; parts: readonly { color: string; value: number }[] };

const HEIGHT = 32;

/** Bars of stacked parts, oldest first, as wide as their place. */
export function Sparkline({ bars, summary }: { bars: readonly Bar[]; summary: string }) {
  const total = ({ parts }: Bar) => parts.reduce((sum, { value }) => sum + value, 0);
  const most = Math.max(1, ...bars.map(total));
  return (
    <svg
      width="100%"
      height={HEIGHT}
      viewBox={`0 0 ${Math.max(bars.length, 1) * 4} ${HEIGHT}`}
      preserveAspectRatio="none"
      role="img"
      aria-label={summary}
    >
      <line
        x1={0}
        x2={bars.length * 4}
        y1={HEIGHT - 0.5}
        y2={HEIGHT - 0.5}
        stroke="var(--line)"
        vectorEffect="non-scaling-stroke"
      />
      {bars.map((bar, index) => {
        let below = 0;
        return bar.parts.map(({ color, value }) => {
          // Even a small value can be seen.
          const height = value === 0 ? 0 : Math.max((value / most) * (HEIGHT - 2), 2);
          below += height;
          return (
            <rect
              key={`${bar.start} ${color}`}
              x={index * 4}
              y={HEIGHT - below}
              width={3}
              height={height}
              fill={color}
            />
          );
        });
      })}
    </svg>
  );
}
