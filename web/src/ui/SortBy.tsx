// Sorts a list by a click on a column's head. The address holds the order: `sort=name`, or `sort=-name` for the reverse.
import { Table, type TableThProps, UnstyledButton } from '@mantine/core';
import { IconChevronDown, IconChevronUp, IconSelector } from '@tabler/icons-react';

import { useSearch } from '../url';

const newestFirst = '-created_at';

/** The head of a column, by which the list can be sorted. Times begin with the latest, everything else with A. */
export function SortBy({ field, children, ...props }: Omit<TableThProps, 'aria-sort'> & { field: string }) {
  const [{ sort = newestFirst }, change] = useSearch();
  const [up, down] = [field.toLowerCase(), `-${field.toLowerCase()}`];
  const is = sort === up ? 'ascending' : sort === down ? 'descending' : undefined;
  const next = is ? (is === 'ascending' ? down : up) : field.endsWith('_AT') ? down : up;
  const Icon = is ? (is === 'ascending' ? IconChevronUp : IconChevronDown) : IconSelector;
  return (
    <Table.Th {...props} aria-sort={is}>
      <UnstyledButton
        fz="inherit"
        fw="inherit"
        c={is && 'var(--ink)'}
        onClick={() => change({ sort: next === newestFirst ? undefined : next })}
      >
        {children} <Icon size={12} style={{ verticalAlign: '-1px' }} aria-hidden />
      </UnstyledButton>
    </Table.Th>
  );
}

/** The order in the address, as an argument for the server; undefined if it names none of these fields. */
export function orderOf<Field extends string>(sort: string | undefined, fields: readonly Field[]) {
  const field = fields.find((each) => each.toLowerCase() === sort?.replace(/^-/, ''));
  return field ? { field, direction: sort?.startsWith('-') ? ('DESC' as const) : ('ASC' as const) } : null;
}
