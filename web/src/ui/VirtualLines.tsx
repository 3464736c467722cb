// Lines of equal height. Only those in view are rendered.
import { useVirtualizer } from '@tanstack/react-virtual';
import { type KeyboardEvent, type ReactNode, type Ref, useImperativeHandle, useRef } from 'react';

import classes from './VirtualLines.module.css';

export type LinesHandle = { scrollTo: (index: number) => void };

const LINE = 20;

export function VirtualLines({
  count,
  line,
  label,
  role,
  active,
  most = 480,
  onKeyDown,
  handle,
}: {
  count: number;
  line: (index: number) => ReactNode;
  label: string;
  role?: 'tree' | 'region';
  /** The id of the element that keys act on. */
  active?: string;
  /** The maximum height in pixels. */
  most?: number;
  onKeyDown?: (event: KeyboardEvent) => void;
  handle?: Ref<LinesHandle>;
}) {
  const box = useRef<HTMLDivElement>(null);
  const virtualizer = useVirtualizer({
    count,
    getScrollElement: () => box.current,
    estimateSize: () => LINE,
    overscan: 20,
  });
  useImperativeHandle(handle, () => ({ scrollTo: (index) => virtualizer.scrollToIndex(index, { align: 'auto' }) }), [
    virtualizer,
  ]);
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: its role is a tree where it takes keys
    // biome-ignore lint/a11y/useAriaPropsSupportedByRole: both of its roles have a label
    <div
      ref={box}
      className={classes.box}
      role={role ?? 'region'}
      aria-label={label}
      aria-activedescendant={active}
      tabIndex={0}
      style={{ height: Math.min(Math.max(count, 1) * LINE + 18, most) }}
      onKeyDown={onKeyDown}
    >
      <div className={classes.lines} role="presentation" style={{ height: virtualizer.getTotalSize() }}>
        {virtualizer.getVirtualItems().map(({ index, start }) => (
          <div key={index} className={classes.line} role="presentation" style={{ transform: `translateY(${start}px)` }}>
            {line(index)}
          </div>
        ))}
      </div>
    </div>
  );
}
