// biome-ignore-all lint/a11y/useSemanticElements: rows are placed by themselves, which the parts of a <table> cannot be
// biome-ignore-all lint/a11y/useFocusableInteractive: heads are not for the focus
// A table of any length: only the rows in view are rendered. On narrow screens each row is a card.
import { useMediaQuery } from '@mantine/hooks';
import { useVirtualizer } from '@tanstack/react-virtual';
import { type MouseEvent, memo, type ReactNode, type Ref, useEffect, useImperativeHandle, useRef } from 'react';

import classes from './VirtualTable.module.css';

export type Column<Row> = {
  key: string;
  label: ReactNode;
  /** As in `grid-template-columns`: `120px`, `minmax(160px, 1fr)`. */
  width: string;
  right?: boolean;
  render: (row: Row, chosen: boolean) => ReactNode;
};

export type VirtualTableHandle = {
  scrollTo: (index: number) => void;
  toTop: () => void;
  /** Puts the focus on a row that is in view. */
  focus: (index: number) => void;
};

const ROW = 40;

/**
 * `rowAt` gives `undefined` for a row that is loading: a placeholder is shown. `columns`, `card` and `onOpen` should
 * stay the same from one render to the next, since rows that did not change are not drawn again.
 */
export function VirtualTable<Row>({
  label,
  columns,
  card,
  cardHeight = 92,
  count,
  rowAt,
  rowKey,
  current,
  isChosen,
  onOpen,
  onLook,
  onTop,
  foot,
  handle,
}: {
  label: string;
  columns: readonly Column<Row>[];
  card?: (row: Row, chosen: boolean) => ReactNode;
  cardHeight?: number;
  count: number;
  rowAt: (index: number) => Row | undefined;
  rowKey: (row: Row) => string;
  /** The row that keys act on. */
  current?: number;
  isChosen?: (row: Row) => boolean;
  onOpen?: (index: number, event: MouseEvent) => void;
  /** The first and last row in view. */
  onLook?: (first: number, last: number) => void;
  onTop?: (atTop: boolean) => void;
  foot?: ReactNode;
  handle?: Ref<VirtualTableHandle>;
}) {
  const narrow = useMediaQuery('(max-width: 48em)', false, { getInitialValueInEffect: false });
  const asCards = narrow && card !== undefined;
  const height = asCards ? cardHeight : ROW;
  const box = useRef<HTMLDivElement>(null);
  const virtualizer = useVirtualizer({
    count,
    getScrollElement: () => box.current,
    estimateSize: () => height,
    overscan: 12,
    scrollPaddingStart: asCards ? 0 : 36,
  });
  // biome-ignore lint/correctness/useExhaustiveDependencies: another height is why it measures
  useEffect(() => virtualizer.measure(), [virtualizer, height]);
  useImperativeHandle(
    handle,
    () => ({
      scrollTo: (index) => virtualizer.scrollToIndex(index, { align: 'auto' }),
      toTop: () => box.current?.scrollTo({ top: 0 }),
      focus: (index) =>
        box.current?.querySelector<HTMLElement>(`[data-index="${index}"]`)?.focus({ preventScroll: true }),
    }),
    [virtualizer],
  );

  const items = virtualizer.getVirtualItems();
  const first = items[0]?.index ?? 0;
  const last = items.at(-1)?.index ?? 0;
  // biome-ignore lint/correctness/useExhaustiveDependencies: more rows may be in view without other places
  useEffect(() => onLook?.(first, last), [onLook, first, last, count]);

  const template = columns.map(({ width }) => width).join(' ');
  return (
    <div className={classes.box} style={{ flex: 1 }}>
      <div
        ref={box}
        className={classes.scroll}
        role="region"
        aria-label={label}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: keys scroll it
        tabIndex={0}
        onScroll={(event) => onTop?.(event.currentTarget.scrollTop < height)}
      >
        <div
          role="table"
          aria-label={label}
          aria-rowcount={count}
          className={classes.table}
          style={asCards ? { width: '100%' } : undefined}
        >
          {!asCards && (
            <div role="rowgroup">
              <div role="row" className={classes.head} style={{ gridTemplateColumns: template }}>
                {columns.map(({ key, label: name, right }) => (
                  <div role="columnheader" key={key} className={right ? classes.right : undefined}>
                    {name}
                  </div>
                ))}
              </div>
            </div>
          )}
          <div role="rowgroup" className={classes.rows} style={{ height: virtualizer.getTotalSize() }}>
            {items.map(({ index, start }) => {
              const row = rowAt(index);
              return (
                <Line
                  key={row ? rowKey(row) : `place ${index}`}
                  row={row}
                  index={index}
                  start={start}
                  height={height}
                  template={template}
                  columns={columns as readonly Column<unknown>[]}
                  card={asCards ? (card as LineProps['card']) : undefined}
                  current={index === current}
                  chosen={row !== undefined && isChosen?.(row) === true}
                  onOpen={onOpen}
                />
              );
            })}
          </div>
        </div>
        {foot}
      </div>
    </div>
  );
}

type LineProps = {
  row: unknown;
  index: number;
  start: number;
  height: number;
  template: string;
  columns: readonly Column<unknown>[];
  card: ((row: unknown, chosen: boolean) => ReactNode) | undefined;
  current: boolean;
  chosen: boolean;
  onOpen: ((index: number, event: MouseEvent) => void) | undefined;
};

const Line = memo(function Line({
  row,
  index,
  start,
  height,
  template,
  columns,
  card,
  current,
  chosen,
  onOpen,
}: LineProps) {
  const shared = {
    role: 'row',
    'aria-rowindex': index + 1,
    'data-index': index,
    'data-current': current || undefined,
    'data-chosen': chosen || undefined,
    'data-open': (onOpen && row !== undefined) || undefined,
    tabIndex: -1,
    onClick: onOpen && row !== undefined ? (event: MouseEvent) => isPlain(event) && onOpen(index, event) : undefined,
  };
  if (card) {
    return (
      <div {...shared} className={classes.card} style={{ transform: `translateY(${start}px)`, height }}>
        <div role="cell">
          {row === undefined ? <span className={classes.bar} style={{ width: '60%' }} /> : card(row, chosen)}
        </div>
      </div>
    );
  }
  return (
    <div
      {...shared}
      className={classes.row}
      style={{ transform: `translateY(${start}px)`, height, gridTemplateColumns: template }}
    >
      {columns.map(({ key, right, render }, at) => (
        <div role="cell" key={key} className={right ? `${classes.cell} ${classes.right}` : classes.cell}>
          {row === undefined ? (
            <span className={classes.bar} style={{ width: `${45 + ((index * 7 + at * 13) % 5) * 10}%` }} />
          ) : (
            render(row, chosen)
          )}
        </div>
      ))}
    </div>
  );
});

/** Not a click on a link or a control within the row, nor one that selects text. */
function isPlain(event: MouseEvent): boolean {
  if (event.target instanceof Element && event.target.closest('a, button, input, label')) return false;
  return !document.getSelection()?.toString();
}
