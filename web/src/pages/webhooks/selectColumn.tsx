import type { Column } from '../../ui/VirtualTable';
import type { WebhookRow } from './queries';
import classes from './Webhooks.module.css';

/** The boxes that select rows; with shift, all between two. */
export function selectColumn(select: (row: WebhookRow, range: boolean) => void): Column<WebhookRow> {
  return {
    key: 'select',
    label: <span role="img" aria-label="Selected" />,
    width: '20px',
    render: (row, selected) => (
      // The label makes the place that one can hit larger than the box.
      <label className={classes.choice}>
        <input
          type="checkbox"
          aria-label={`Select ${row.eventType ?? 'webhook'} received ${row.receivedAt.slice(0, 19)}`}
          checked={selected}
          onChange={(event) => select(row, event.nativeEvent instanceof MouseEvent && event.nativeEvent.shiftKey)}
        />
      </label>
    ),
  };
}
