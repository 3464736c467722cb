// `j` and `k` move the focus through the rows of a list; Enter opens the focused button or link.
import { useRef } from 'react';

import { useOffer } from './commands';

/** The list gets the reference; `selector` finds the element of each row that takes the focus. */
export function useRowKeys<E extends HTMLElement>(selector: string) {
  const list = useRef<E>(null);
  const go = (by: 1 | -1) => {
    const all = [...(list.current?.querySelectorAll<HTMLElement>(selector) ?? [])];
    const at = all.indexOf(document.activeElement as E);
    all[Math.min(Math.max(at + by, 0), all.length - 1)]?.focus();
  };
  useOffer([
    { label: 'Next row', hotkey: 'j', run: () => go(1) },
    { label: 'Previous row', hotkey: 'k', run: () => go(-1) },
  ]);
  return list;
}
