// The selected rows. They stay selected as the list grows.
import { useCallback, useMemo, useRef, useState } from 'react';

import type { WebhookRow } from './queries';
import { indexOf, type Rows, rowAt } from './rows';

/** Maximum number of selected rows. More are retried at once, by the filter. */
export const MOST_CHOSEN = 1_000;

export type Selection = {
  chosen: ReadonlyMap<string, WebhookRow>;
  has: (row: WebhookRow) => boolean;
  /** With `range`, all from the last selected row to this one. */
  choose: (row: WebhookRow, range: boolean) => void;
  clear: () => void;
};

export function useSelection(list: Rows): Selection {
  const [chosen, setChosen] = useState<ReadonlyMap<string, WebhookRow>>(new Map());
  const anchor = useRef<string>(undefined);
  const rows = useRef(list);
  rows.current = list;
  const choose = useCallback((row: WebhookRow, range: boolean) => {
    // Read now, because the anchor changes before the update runs.
    const from = range && anchor.current !== undefined ? indexOf(rows.current, anchor.current) : -1;
    const to = indexOf(rows.current, row.webhookId);
    anchor.current = row.webhookId;
    setChosen((before) => {
      const next = new Map(before);
      if (from >= 0 && to >= 0) {
        const [first, last] = from < to ? [from, to] : [to, from];
        for (let index = first; index <= last && next.size < MOST_CHOSEN; index++) {
          const each = rowAt(rows.current, index);
          if (each) next.set(each.webhookId, each);
        }
      } else if (!next.delete(row.webhookId) && next.size < MOST_CHOSEN) {
        next.set(row.webhookId, row);
      }
      return next;
    });
  }, []);
  const clear = useCallback(() => setChosen(new Map()), []);
  const has = useCallback((row: WebhookRow) => chosen.has(row.webhookId), [chosen]);
  return useMemo(() => ({ chosen, has, choose, clear }), [chosen, has, choose, clear]);
}
