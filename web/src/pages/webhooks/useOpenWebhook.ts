// The current row, which keys act on, and the webhook that is open beside the list. The address holds the open one.
import { type RefObject, useCallback, useRef, useState } from 'react';

import type { VirtualTableHandle } from '../../ui/VirtualTable';
import { useSearch } from '../../url';
import { count, indexOf, type Rows, rowAt } from './rows';

export type OpenWebhook = {
  /** The ID of the open webhook. */
  opened: string | undefined;
  /** The current row. */
  current: number;
  /** The row of the open webhook, or else the current one. */
  here: number;
  open: (index: number) => void;
  /** Makes another row current, and opens it if a webhook is open. */
  move: (by: number) => void;
  close: () => void;
};

export function useOpenWebhook(list: Rows, table: RefObject<VirtualTableHandle | null>): OpenWebhook {
  const [{ webhook: opened }, setSearch] = useSearch();
  const [current, setCurrent] = useState(-1);
  // `open` is stable across renders, so that rows are not rendered again.
  const latest = useRef({ list, opened });
  latest.current = { list, opened };
  const open = useCallback(
    (index: number) => {
      const row = rowAt(latest.current.list, index);
      setCurrent(index);
      if (row) setSearch({ webhook: row.webhookId }, { replace: Boolean(latest.current.opened) });
    },
    [setSearch],
  );
  const openedAt = opened ? indexOf(list, opened) : -1;
  const here = openedAt >= 0 ? openedAt : current;
  const move = (by: number) => {
    const next = Math.min(count(list) - 1, Math.max(0, here + by));
    const row = rowAt(list, next);
    setCurrent(next);
    table.current?.scrollTo(next);
    if (opened && row) setSearch({ webhook: row.webhookId }, { replace: true });
    else requestAnimationFrame(() => table.current?.focus(next));
  };
  const close = () => {
    setSearch({ webhook: '', tab: '', view: '' });
    setCurrent(here);
    requestAnimationFrame(() => table.current?.focus(here));
  };
  return { opened, current, here, open, move, close };
}
