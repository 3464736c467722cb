import { Button, Group } from '@mantine/core';

import { count, plural } from '../../format';
import type { WebhookRow } from './queries';
import { retryable } from './retry';
import classes from './Webhooks.module.css';

type Props = {
  selected: readonly WebhookRow[];
  clear: () => void;
  /** Undefined until the first ones are loaded. */
  loaded: number | undefined;
  /** More webhooks exist than are loaded. */
  more: boolean;
  retry: (selected: readonly WebhookRow[]) => void;
  retryAll: () => void;
};

/** The bar above the list: the number of webhooks, and the actions for the selected ones. */
export function SelectionBar({ selected, clear, loaded, more, retry, retryAll }: Props) {
  if (selected.length === 0) {
    return (
      <div className={classes.bar}>
        <span className="quiet" aria-live="polite">
          {loaded !== undefined && (more ? `${count(loaded)}+ webhooks` : plural(loaded, 'webhook'))}
        </span>
        <Button size="compact-sm" variant="subtle" color="gray" onClick={retryAll}>
          Retry all matching…
        </Button>
      </div>
    );
  }
  const able = selected.filter(retryable);
  return (
    <div className={classes.bar}>
      <span aria-live="polite">
        <b>{count(selected.length)}</b> selected
        {able.length < selected.length && `, ${able.length === 0 ? 'none' : count(able.length)} can be retried`}
      </span>
      <Group gap="xs">
        {able.length > 0 && (
          <Button size="compact-sm" onClick={() => retry(able)}>
            Retry {plural(able.length, 'webhook')}…
          </Button>
        )}
        <Button size="compact-sm" variant="default" onClick={retryAll}>
          Retry all matching…
        </Button>
        <Button size="compact-sm" variant="subtle" color="gray" onClick={clear}>
          Clear selection
        </Button>
      </Group>
    </div>
  );
}
