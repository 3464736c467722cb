// Text as it came, of any size: long lines are broken, and only what is in view is there.
import { useElementSize } from '@mantine/hooks';
import { useMemo } from 'react';

import { VirtualLines } from '../VirtualLines';
import { visible } from './visible';

/** About the width of a character of the typeface for code at its size there. */
const CHARACTER = 7.3;

export function RawText({ text, label, most }: { text: string; label: string; most?: number }) {
  const { ref, width } = useElementSize();
  const columns = Math.max(40, Math.floor((width - 28) / CHARACTER));
  const starts = useMemo(() => broken(text, columns), [text, columns]);
  return (
    <div ref={ref}>
      <VirtualLines
        count={starts.length}
        label={label}
        most={most}
        line={(index) => {
          const line = text.slice(starts[index], starts[index + 1] ?? text.length);
          return visible(line.replace(/\r?\n$/, '')) || '\u00A0';
        }}
      />
    </div>
  );
}

/** Where lines begin, none longer than so many characters, none beginning within one. */
export function broken(text: string, columns: number): number[] {
  const starts: number[] = [];
  for (let start = 0; start < text.length; ) {
    starts.push(start);
    const newline = text.indexOf('\n', start);
    const end = newline < 0 ? text.length : newline + 1;
    let next = Math.min(end, start + columns);
    // A newline that would stand alone on the next line belongs to this one.
    if (next === newline) next = end;
    const code = text.charCodeAt(next - 1);
    if (next < end && code >= 0xd800 && code < 0xdc00) next -= 1;
    start = next;
  }
  return starts.length > 0 ? starts : [0];
}
