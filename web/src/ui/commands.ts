// The current page's commands: its keys, and its entries in the command palette.
import { useHotkeys } from '@mantine/hooks';
import { useEffect, useRef, useSyncExternalStore } from 'react';

export type Command = {
  /** The name in the command palette and in the list of shortcuts (`?`). */
  label: string;
  /** A single key like `r`, ignored while a field has the focus. */
  hotkey?: string;
  run: () => void;
};

let commands: readonly Command[] = [];
const listeners = new Set<() => void>();
const pages = new Map<symbol, readonly Command[]>();

function publish(): void {
  commands = [...pages.values()].flat();
  for (const listener of listeners) listener();
}

/** Offers commands while the component is mounted. */
export function useOffer(offered: readonly Command[]): void {
  const latest = useRef(offered);
  latest.current = offered;
  // A command's action may change at every render; its presence, label and key do not.
  const shape = JSON.stringify(offered.map(({ label, hotkey }) => [label, hotkey]));
  useEffect(() => {
    const page = Symbol(shape);
    pages.set(
      page,
      latest.current.map((command, index) => ({ ...command, run: () => latest.current[index]?.run() })),
    );
    publish();
    return () => {
      pages.delete(page);
      publish();
    };
  }, [shape]);
  useHotkeys(offered.flatMap(({ hotkey, run }) => (hotkey ? [[hotkey, run] as [string, () => void]] : [])));
}

/** The commands that are offered now. */
export function useCommands(): readonly Command[] {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => commands,
  );
}
