import { SegmentedControl } from '@mantine/core';

import { useSearch } from '../url';

/** Filters a list by `active` in the address: all, active (`yes`), or deactivated (`no`). */
export function ActiveChoice() {
  const [{ active }, change] = useSearch();
  return (
    <SegmentedControl
      size="xs"
      aria-label="Status"
      value={active ?? 'all'}
      onChange={(next) => change({ active: next === 'all' ? undefined : next })}
      data={[
        { value: 'all', label: 'All' },
        { value: 'yes', label: 'Active' },
        { value: 'no', label: 'Deactivated' },
      ]}
    />
  );
}

/** The filter for the server. */
export function activeOf(active: string | undefined): boolean | null {
  return active ? active === 'yes' : null;
}
