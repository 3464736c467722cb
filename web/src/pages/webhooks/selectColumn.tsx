import type { Column } from '../../ui/VirtualTable';
import type { WebhookRow } from './queries';
import classes from './Webhooks.module.css';

/** The column of checkboxes. Shift selects all rows between two. */
export function selectColumn(select: (row: WebhookRow, range: boolean) => void): Column<WebhookRow> {
  return {
    key: 'select',
    label: <span role="img" aria-label="Selected" />,
    width: '20px',
    render: (row, selected) => (
      // The label makes the clickable area larger than the checkbox.
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
