// A JSON tree: branches fold, keys and values can be searched, each line shows its path.
import { ActionIcon, Group, Text, TextInput } from '@mantine/core';
import { IconChevronDown, IconChevronUp, IconSearch } from '@tabler/icons-react';
import { type KeyboardEvent, useCallback, useEffect, useId, useMemo, useRef, useState } from 'react';

import { count } from '../../format';
import { Copy } from '../CopyText';
import { type LinesHandle, VirtualLines } from '../VirtualLines';
import {
  at,
  isBranch,
  type Json,
  keyOf,
  type Line,
  lines,
  MOST_LINES,
  type Path,
  revealing,
  search,
  sizeOf,
  told,
  untouched,
  type View,
  written,
} from './json';
import classes from './payload.module.css';
import { beginning, visible } from './visible';

const MOST_HITS = 1_000;
/** Characters of a value that its line shows. */
const SHORT = 240;

export function JsonTree({ value, most }: { value: Json; most?: number }) {
  const [view, setView] = useState<View>(untouched);
  const [chosen, setChosen] = useState<Path>([]);
  const all = useMemo(() => lines(value, view), [value, view]);
  const place = useRef<LinesHandle>(null);
  const id = useId();
  const chosenKey = keyOf(chosen);
  const index = all.findIndex((each) => each.key === chosenKey);

  const toggle = useCallback((line: Line) => {
    setView((before) =>
      line.kind === 'more'
        ? { ...before, shown: new Map(before.shown).set(keyOf(line.path), sizeOf(line.value) - line.size + 1_000) }
        : { ...before, toggled: new Map(before.toggled).set(line.key, !line.open) },
    );
  }, []);
  const reveal = useCallback(
    (path: Path) => {
      setView((before) => revealing(before, value, path));
      setChosen(path);
    },
    [value],
  );
  // It can be scrolled to only after it is rendered.
  const wanted = useRef('');
  useEffect(() => {
    if (wanted.current === chosenKey || index < 0) return;
    wanted.current = chosenKey;
    place.current?.scrollTo(index);
  }, [chosenKey, index]);

  const keys = (event: KeyboardEvent) => {
    const line = all[index];
    const to = (next: number) => {
      const target = all[Math.min(all.length - 1, Math.max(0, next))];
      if (target && target.kind !== 'more') setChosen(target.path);
    };
    if (event.key === 'ArrowDown') to(index + (all[index + 1]?.kind === 'more' ? 2 : 1));
    else if (event.key === 'ArrowUp') to(index - (all[index - 1]?.kind === 'more' ? 2 : 1));
    else if (event.key === 'Home') to(0);
    else if (event.key === 'End') to(all.length - 1);
    else if (event.key === 'ArrowRight' && line?.kind === 'branch') line.open ? to(index + 1) : toggle(line);
    else if (event.key === 'ArrowLeft' && line) line.open ? toggle(line) : setChosen(line.path.slice(0, -1));
    else return;
    event.preventDefault();
  };

  return (
    <div className={classes.tree}>
      <Search root={value} reveal={reveal} />
      <VirtualLines
        handle={place}
        count={all.length}
        label="Payload"
        role="tree"
        most={most}
        active={index >= 0 ? `${id}-${index}` : undefined}
        onKeyDown={keys}
        line={(at) => {
          const line = all[at];
          return (
            line && <TreeLine line={line} id={`${id}-${at}`} chosen={at === index} choose={setChosen} toggle={toggle} />
          );
        }}
      />
      {all.length >= MOST_LINES && (
        <Text size="xs" className="quiet">
          Showing the first {count(MOST_LINES)} lines. Collapse some, or search.
        </Text>
      )}
      <Chosen root={value} path={chosen} />
    </div>
  );
}

function TreeLine({
  line,
  id,
  chosen,
  choose,
  toggle,
}: {
  line: Line;
  id: string;
  chosen: boolean;
  choose: (path: Path) => void;
  toggle: (line: Line) => void;
}) {
  const indent = { paddingLeft: Math.min(line.depth, 40) * 16 };
  if (line.kind === 'more') {
    return (
      <span style={indent}>
        <button type="button" className={classes.more} onClick={() => toggle(line)}>
          {count(line.size)} more
        </button>
      </span>
    );
  }
  const name = line.path.at(-1);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the tree takes the keys
    // biome-ignore lint/a11y/useFocusableInteractive: the tree has the focus, and names the item by aria-activedescendant
    <span
      id={id}
      role="treeitem"
      aria-level={line.depth + 1}
      aria-expanded={line.kind === 'branch' && line.size > 0 ? line.open : undefined}
      aria-selected={chosen}
      className={classes.item}
      style={indent}
      onClick={() => {
        choose(line.path);
        if (line.kind === 'branch' && line.size > 0) toggle(line);
      }}
    >
      <span className={classes.fold} aria-hidden>
        {line.kind === 'branch' && line.size > 0 ? (line.open ? '▾' : '▸') : ''}
      </span>
      {name !== undefined && (
        <>
          <bdi className={typeof name === 'number' ? classes.index : classes.key}>
            {visible(beginning(String(name), 120))}
          </bdi>
          {': '}
        </>
      )}
      {line.kind === 'branch' ? <BranchValue line={line} /> : <LeafValue value={line.value} />}
    </span>
  );
}

function BranchValue({ line }: { line: Line }) {
  const [open, close, one, many] = Array.isArray(line.value) ? ['[', ']', 'item', 'items'] : ['{', '}', 'key', 'keys'];
  if (line.size === 0) return <span className={classes.punctuation}>{open + close}</span>;
  return (
    <span className={classes.punctuation}>
      {line.open ? open : `${open}…${close}`}{' '}
      <span className={classes.size}>{`${count(line.size)} ${line.size === 1 ? one : many}`}</span>
    </span>
  );
}

function LeafValue({ value }: { value: Json }) {
  const kind = value === null ? 'null' : typeof value === 'object' ? 'number' : typeof value;
  const text = typeof value === 'string' ? JSON.stringify(beginning(value, SHORT)) : told(value);
  return (
    <bdi className={classes.value} data-kind={kind}>
      {visible(text)}
      {typeof value === 'string' && value.length > SHORT && (
        <span className={classes.size}> … {count(value.length)} characters</span>
      )}
    </bdi>
  );
}

/** The selected line: its path, and its whole text. */
function Chosen({ root, path }: { root: Json; path: Path }) {
  const value = at(root, path);
  if (value === undefined) return null;
  const name = written(path);
  const text = typeof value === 'string' ? value : isBranch(value) ? undefined : told(value);
  return (
    <div className={classes.chosen} aria-live="polite">
      <Group gap={4} wrap="nowrap">
        <Text span size="xs" className="mono quiet cut">
          <bdi>{visible(beginning(name, 400))}</bdi>
        </Text>
        <Copy value={name} label="Copy path" />
        {text !== undefined && <Copy value={text} label="Copy value" />}
      </Group>
      {typeof value === 'string' && value.length > 60 && (
        <div className={classes.text}>{visible(beginning(value, 10_000))}</div>
      )}
    </div>
  );
}

function Search({ root, reveal }: { root: Json; reveal: (path: Path) => void }) {
  const [text, setText] = useState('');
  const [found, setFound] = useState<Path[] | null>(null);
  const [hit, setHit] = useState(0);
  useEffect(() => {
    setFound(null);
    setHit(0);
    if (text === '') return;
    let stopped = false;
    const steps = search(root, text, MOST_HITS);
    const step = () => {
      const until = performance.now() + 8;
      while (!stopped && performance.now() < until) {
        const { value, done } = steps.next();
        if (done) return;
        if (value) {
          setFound(value);
          if (value[0]) reveal(value[0]);
          return;
        }
      }
      if (!stopped) setTimeout(step);
    };
    const timer = setTimeout(step, 150);
    return () => {
      stopped = true;
      clearTimeout(timer);
    };
  }, [root, text, reveal]);
  const go = (by: number) => {
    if (!found?.length) return;
    const next = (hit + by + found.length) % found.length;
    setHit(next);
    const path = found[next];
    if (path) reveal(path);
  };
  return (
    <Group gap={4} wrap="nowrap">
      <TextInput
        size="xs"
        style={{ flex: 1 }}
        aria-label="Search the payload"
        placeholder="Search keys and values"
        leftSection={<IconSearch size={14} aria-hidden />}
        value={text}
        onChange={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === 'Enter') go(event.shiftKey ? -1 : 1);
          if (event.key === 'Escape' && text) {
            setText('');
            event.stopPropagation();
          }
        }}
      />
      <Text size="xs" className="quiet" miw={84} ta="right" aria-live="polite">
        {text &&
          (found === null
            ? 'Searching…'
            : found.length === 0
              ? 'No results'
              : `${count(hit + 1)} of ${count(found.length)}${found.length >= MOST_HITS ? '+' : ''}`)}
      </Text>
      <ActionIcon
        variant="subtle"
        color="gray"
        aria-label="Previous result"
        disabled={!found?.length}
        onClick={() => go(-1)}
      >
        <IconChevronUp size={16} />
      </ActionIcon>
      <ActionIcon
        variant="subtle"
        color="gray"
        aria-label="Next result"
        disabled={!found?.length}
        onClick={() => go(1)}
      >
        <IconChevronDown size={16} />
      </ActionIcon>
    </Group>
  );
}
