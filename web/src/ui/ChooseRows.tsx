import { Checkbox } from '@mantine/core';

import type { useSelection } from './useSelection';

type Selection = ReturnType<typeof useSelection>;

/** Selects all rows that are shown, or none. */
export function ChooseAll({ of: { chosen, clear, all }, shown }: { of: Selection; shown: number }) {
  return (
    <Checkbox
      size="xs"
      aria-label="Select all shown"
      checked={chosen.size > 0 && chosen.size === shown}
      indeterminate={chosen.size > 0 && chosen.size < shown}
      onChange={() => (chosen.size > 0 ? clear() : all())}
    />
  );
}

/** Selects a row; with Shift, all from the last selected one. */
export function ChooseRow({ of: { chosen, toggle }, id, label }: { of: Selection; id: string; label: string }) {
  return (
    <Checkbox
      size="xs"
      aria-label={`Select ${label}`}
      checked={chosen.has(id)}
      onChange={(event) => toggle(id, (event.nativeEvent as MouseEvent).shiftKey)}
    />
  );
}
