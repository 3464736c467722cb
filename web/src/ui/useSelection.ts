// The selected rows of a list. Shift selects all between two.
import { useCallback, useRef, useState } from 'react';

export function useSelection(ids: readonly string[]) {
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const last = useRef<string>(undefined);
  const toggle = useCallback(
    (id: string, range: boolean) => {
      setChosen((before) => {
        const next = new Set(before);
        const [from, to] = [ids.indexOf(last.current ?? ''), ids.indexOf(id)];
        const between = range && from >= 0 ? ids.slice(Math.min(from, to), Math.max(from, to) + 1) : [id];
        const on = !before.has(id);
        for (const each of between) {
          if (on) next.add(each);
          else next.delete(each);
        }
        last.current = id;
        return next;
      });
    },
    [ids],
  );
  return {
    chosen,
    toggle,
    clear: () => setChosen(new Set()),
    all: () => setChosen(new Set(ids)),
  };
}
