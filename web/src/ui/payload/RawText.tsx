// The raw text, of any size: long lines are broken, and only the lines in view are rendered.
import { useElementSize } from '@mantine/hooks';
import { useMemo } from 'react';

import { VirtualLines } from '../VirtualLines';
import { broken } from './lines';
import { visible } from './visible';

/** About the width of a character in the code font, in pixels. */
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
