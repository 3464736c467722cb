// The table of the list pages. Columns are data; selecting, sorting and loading more are implemented once, here.
import { Table } from '@mantine/core';
import type { ReactNode, Ref } from 'react';

import { Card } from './Card';
import { ChooseAll, ChooseRow } from './ChooseRows';
import { ListEnd } from './ListEnd';
import { SortBy } from './SortBy';
import type { List } from './useList';
import type { useSelection } from './useSelection';

export type DataColumn<Row> = {
  head: string;
  /** The field that the server can sort by. */
  sort?: string;
  /** Numbers are aligned right. */
  isNumber?: boolean;
  /** In pixels; longer text is cut off. */
  maxWidth?: number;
  cell: (row: Row) => ReactNode;
};

type Selecting<Row> = {
  of: ReturnType<typeof useSelection>;
  /** The name of a row, for screen readers. */
  label: (row: Row) => string;
  /** Whether a row can be selected; by default all can. */
  can?: (row: Row) => boolean;
};

type Props<Row> = {
  list: List<Row>;
  columns: readonly DataColumn<Row>[];
  /** On narrower screens, it scrolls sideways. */
  minWidth: number;
  /** Shown instead of the table if there are no rows. */
  empty: ReactNode;
  select?: Selecting<Row>;
  /** The actions at the end of each row. */
  actions?: (row: Row) => ReactNode;
  bodyRef?: Ref<HTMLTableSectionElement>;
};

export function DataTable<Row extends { id: string }>({
  list,
  columns,
  minWidth,
  empty,
  select,
  actions,
  bodyRef,
}: Props<Row>) {
  if (!list.isFirst && !list.error && list.rows.length === 0) return empty;
  const can = select?.can ?? (() => true);
  return (
    <Card p={0}>
      <Table.ScrollContainer minWidth={minWidth}>
        <Table highlightOnHover>
          <Table.Thead>
            <Table.Tr>
              {select && (
                <Table.Th w={36}>
                  <ChooseAll of={select.of} shown={list.rows.filter(can).length} />
                </Table.Th>
              )}
              {columns.map((column) => (
                <Head key={column.head} of={column} />
              ))}
              {actions && <Table.Th w={48} aria-label="Actions" />}
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody ref={bodyRef}>
            {list.rows.map((row) => (
              <Table.Tr key={row.id} bg={select?.of.chosen.has(row.id) ? 'var(--chosen)' : undefined}>
                {select && (
                  <Table.Td>{can(row) && <ChooseRow of={select.of} id={row.id} label={select.label(row)} />}</Table.Td>
                )}
                {columns.map(({ head, isNumber, maxWidth, cell }) => (
                  <Table.Td key={head} ta={isNumber ? 'right' : undefined} maw={maxWidth}>
                    {cell(row)}
                  </Table.Td>
                ))}
                {actions && <Table.Td>{actions(row)}</Table.Td>}
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      <ListEnd of={list} />
    </Card>
  );
}

function Head<Row>({ of: { head, sort, isNumber } }: { of: DataColumn<Row> }) {
  const align = isNumber ? 'right' : undefined;
  if (!sort) return <Table.Th ta={align}>{head}</Table.Th>;
  return (
    <SortBy field={sort} ta={align}>
      {head}
    </SortBy>
  );
}
