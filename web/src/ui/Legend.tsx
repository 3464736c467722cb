import classes from './TimeChart.module.css';

/** The meaning of the colours of a chart. */
export function Legend({ of }: { of: readonly { label: string; color: string }[] }) {
  return (
    <div className={classes.legend} aria-hidden>
      {of.map(({ label, color }) => (
        <span key={label}>
          <span className={classes.dot} style={{ background: color }} />
          {label}
        </span>
      ))}
    </div>
  );
}
