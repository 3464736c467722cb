// The rows of the list, or their placeholder.
import { Button, Group } from '@mantine/core';
import { type ReactNode, type RefObject, useCallback, useMemo, useRef } from 'react';

import { count, plural } from '../../format';
import { useOrganization } from '../../session/viewer';
import { ErrorCard } from '../../ui/ErrorCard';
import { VirtualTable, type VirtualTableHandle } from '../../ui/VirtualTable';
import { columnsFor, WebhookCard } from './columns';
import type { WebhookRow } from './queries';
import { count as countRows, isLoaded, rowAt } from './rows';
import { selectColumn } from './selectColumn';
import type { OpenWebhook } from './useOpenWebhook';
import type { RowsAtHand } from './useRows';
import type { Selection } from './useSelection';
import classes from './Webhooks.module.css';

type Props = {
  rows: RowsAtHand;
  selection: Selection;
  navigation: OpenWebhook;
  table: RefObject<VirtualTableHandle | null>;
  /** True while the newest rows are in view. */
  top: RefObject<boolean>;
  reload: () => void;
  /** Shown instead of the list if there are no webhooks. */
  empty: ReactNode;
};

/** Number of placeholders while the first rows load. */
const PLACES = 30;

export function WebhookTable({ rows, selection, navigation, table, top, reload, empty }: Props) {
  const { base } = useOrganization();
  const { list } = rows;
  const size = countRows(list);
  const latest = useRef(list);
  latest.current = list;
  const at = useCallback((index: number) => rowAt(latest.current, index), []);
  const hrefOf = useCallback((row: WebhookRow) => `${base}/webhooks/${row.webhookId}`, [base]);
  const select = useMemo(() => selectColumn(selection.choose), [selection.choose]);
  const columns = useMemo(() => columnsFor(hrefOf, select), [hrefOf, select]);
  const card = useCallback(
    (row: WebhookRow, selected: boolean) => (
      <WebhookCard row={row} href={hrefOf(row)} choice={select.render(row, selected)} />
    ),
    [hrefOf, select],
  );
  if (rows.error && !isLoaded(list)) return <Instead of={<ErrorCard error={rows.error} again={rows.goOn} />} />;
  if (isLoaded(list) && size === 0 && list.next === undefined) return <Instead of={empty} />;
  return (
    <div className={classes.list} data-loading={!isLoaded(list) || undefined}>
      {list.waiting > 0 && (
        <Button size="xs" radius="xl" className={classes.pill} onClick={reload} aria-live="polite">
          {list.waiting > 999 ? 'Show new webhooks' : `Show ${plural(list.waiting, 'new webhook')}`}
        </Button>
      )}
      <VirtualTable
        handle={table}
        label="Webhooks"
        columns={columns}
        card={card}
        count={isLoaded(list) ? size : PLACES}
        rowAt={at}
        rowKey={keyOf}
        current={navigation.here}
        isChosen={selection.has}
        onOpen={navigation.open}
        onLook={rows.look}
        onTop={(isTop) => {
          top.current = isTop;
          if (isTop && list.waiting > 0) rows.reload();
        }}
        foot={isLoaded(list) && <Foot rows={rows} size={size} />}
      />
    </div>
  );
}

const keyOf = (row: WebhookRow) => row.webhookId;

function Instead({ of }: { of: ReactNode }) {
  return <div className={classes.instead}>{of}</div>;
}

function Foot({ rows, size }: { rows: RowsAtHand; size: number }) {
  return <div className={classes.foot}>{told()}</div>;

  function told(): ReactNode {
    if (rows.error) return <ErrorCard error={rows.error} again={rows.goOn} title="Couldn't load more webhooks" />;
    if (rows.paused)
      return (
        <Group justify="center" gap="xs">
          {size === 0 ? 'Nothing found so far.' : `Found ${plural(size, 'webhook')} so far.`}
          <Button size="compact-xs" variant="default" onClick={rows.goOn}>
            Search older webhooks
          </Button>
        </Group>
      );
    if (rows.list.next !== undefined) return 'Loading…';
    return size === 1 ? 'Showing the only webhook' : `Showing all ${count(size)} webhooks`;
  }
}
