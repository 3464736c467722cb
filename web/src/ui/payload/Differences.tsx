// The differences between two payloads, path by path.
import { Text } from '@mantine/core';
import { useMemo } from 'react';

import { count, plural } from '../../format';
import { type Difference, diff, MOST } from './diff';
import { isBranch, type Json, told, written } from './json';
import classes from './payload.module.css';
import { beginning, visible } from './visible';

/** Differences that are shown; the rest are counted. */
const SHOWN = 200;

export function Differences({ before, after }: { before: Json; after: Json }) {
  const found = useMemo(() => {
    try {
      return diff(before, after);
    } catch {
      // The nesting is too deep for the call stack.
      return null;
    }
  }, [before, after]);
  if (found === null) return <Text size="sm">The payloads are nested too deeply to compare.</Text>;
  if (found.length === 0) return <Text size="sm">No differences.</Text>;
  return (
    <div>
      <Text size="sm" mb="xs">
        {found.length >= MOST ? `More than ${count(MOST)} differences` : plural(found.length, 'difference')}
        {found.length > SHOWN && `; showing the first ${SHOWN}`}
      </Text>
      <ul className={classes.differences}>
        {found.slice(0, SHOWN).map((each) => (
          <OneDifference key={written(each.path) + each.kind} of={each} />
        ))}
      </ul>
    </div>
  );
}

const signs = { added: ['+', 'Added'], removed: ['−', 'Removed'], changed: ['±', 'Changed'] } as const;

function OneDifference({ of: { path, kind, before, after } }: { of: Difference }) {
  const [sign, word] = signs[kind];
  return (
    <li className={classes.difference}>
      <span role="img" aria-label={word} title={word}>
        {sign}
      </span>
      <span>
        <bdi className="quiet">{visible(beginning(written(path), 300))}</bdi>
        {before !== undefined && <Side side="before" value={before} />}
        {after !== undefined && <Side side="after" value={after} />}
      </span>
    </li>
  );
}

function Side({ side, value }: { side: 'before' | 'after'; value: Json }) {
  const text = isBranch(value) ? JSON.stringify(value) : told(value);
  return (
    <div className={classes.side} data-side={side}>
      {side === 'before' ? '− ' : '+ '}
      {visible(beginning(text, 500))}
      {text.length > 500 && ' …'}
    </div>
  );
}
