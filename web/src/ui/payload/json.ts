// JSON as a tree of lines. Only open lines are created, so that a body of 5 MB stays fast.

/** A number whose digits a JavaScript number would lose. */
export class Exact {
  constructor(readonly source: string) {}
}

export type Json = null | boolean | number | string | Exact | Json[] | { [key: string]: Json };

/** A double may not hold 16 or more digits, or an exponent. */
const delicate = /\d{16}|\d[eE][+-]?\d|\d\.\d*0[\s,\]}]/;

/** `undefined` if it is not JSON. */
export function parse(text: string): Json | undefined {
  try {
    return JSON.parse(text, delicate.test(text) ? keepingDigits : undefined) as Json;
  } catch {
    return undefined;
  }
}

function keepingDigits(_key: string, value: unknown, context?: { source?: string }): unknown {
  if (typeof value !== 'number' || context?.source === undefined) return value;
  return String(value) === context.source ? value : new Exact(context.source);
}

export type Path = readonly (string | number)[];

export const isBranch = (value: Json): value is Json[] | { [key: string]: Json } =>
  typeof value === 'object' && value !== null && !(value instanceof Exact);

export const keyOf = (path: Path): string =>
  path.map((part) => `/${String(part).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');

/** As JavaScript would write it: `$.a.b[3]["c d"]`. */
export function written(path: Path): string {
  return path.reduce<string>((text, part) => {
    if (typeof part === 'number') return `${text}[${part}]`;
    return /^[A-Za-z_$][\w$]*$/.test(part) ? `${text}.${part}` : `${text}[${JSON.stringify(part)}]`;
  }, '$');
}

export function at(root: Json, path: Path): Json | undefined {
  let value: Json | undefined = root;
  for (const part of path) {
    if (value === undefined || !isBranch(value)) return undefined;
    value = (value as { [key: string]: Json })[part];
  }
  return value;
}

export type Line = {
  path: Path;
  key: string;
  depth: number;
  value: Json;
  /** The number of children; for `more`, the number of hidden ones. */
  size: number;
  kind: 'branch' | 'leaf' | 'more';
  open: boolean;
};

/** The branches that were opened or closed, and those that show more children. */
export type View = { toggled: ReadonlyMap<string, boolean>; shown: ReadonlyMap<string, number> };

export const untouched: View = { toggled: new Map(), shown: new Map() };

/** Children that are shown at first. */
export const FIRST = 200;
/** Maximum number of lines. */
export const MOST_LINES = 200_000;

/** At first, small branches near the root are open. */
export function isOpen(view: View, key: string, depth: number, size: number): boolean {
  return view.toggled.get(key) ?? (depth < 2 && size <= (depth === 0 ? Number.MAX_SAFE_INTEGER : 40));
}

export const sizeOf = (value: Json): number =>
  Array.isArray(value) ? value.length : isBranch(value) ? Object.keys(value).length : 0;

/** The lines that are open now, in order. */
export function lines(root: Json, view: View): Line[] {
  const found: Line[] = [];
  // An explicit stack, because deep nesting would exhaust the call stack.
  const todo: { path: Path; value: Json; more?: number }[] = [{ path: [], value: root }];
  for (let next = todo.pop(); next && found.length < MOST_LINES; next = todo.pop()) {
    const { path, value, more } = next;
    const key = keyOf(path);
    const depth = path.length;
    if (more !== undefined) {
      found.push({ path, key: `${key}/…more`, depth: depth + 1, value, size: more, kind: 'more', open: false });
      continue;
    }
    const size = sizeOf(value);
    const branch = isBranch(value);
    const open = branch && size > 0 && isOpen(view, key, depth, size);
    found.push({ path, key, depth, value, size, kind: branch ? 'branch' : 'leaf', open });
    if (!open || !branch) continue;
    const shown = view.shown.get(key) ?? FIRST;
    if (size > shown) todo.push({ path, value, more: size - shown });
    const keys = Array.isArray(value) ? null : Object.keys(value);
    for (let index = Math.min(size, shown) - 1; index >= 0; index--) {
      const part = keys ? (keys[index] ?? '') : index;
      todo.push({ path: [...path, part], value: (value as { [key: string]: Json })[part] ?? null });
    }
  }
  return found;
}

/** The text of a value without children. */
export function told(value: Json): string {
  if (value instanceof Exact) return value.source;
  if (isBranch(value)) return Array.isArray(value) ? '[]' : '{}';
  return typeof value === 'string' ? JSON.stringify(value) : String(value);
}

/** The view that shows a path: its ancestors are open, with enough children. */
export function revealing(view: View, root: Json, path: Path): View {
  const toggled = new Map(view.toggled);
  const shown = new Map(view.shown);
  for (let depth = 0; depth < path.length; depth++) {
    const above = path.slice(0, depth);
    const key = keyOf(above);
    const value = at(root, above);
    const part = path[depth];
    if (value === undefined || part === undefined || !isBranch(value)) break;
    toggled.set(key, true);
    const index = Array.isArray(value) ? Number(part) : Object.keys(value).indexOf(String(part));
    if (index >= (shown.get(key) ?? FIRST)) shown.set(key, index + FIRST / 2);
  }
  return { toggled, shown };
}

/** The places where a key or value contains the text, ignoring case. It yields now and then, so that the page stays responsive. */
export function* search(root: Json, text: string, most: number): Generator<Path[] | null> {
  const wanted = text.toLowerCase();
  const found: Path[] = [];
  const todo: { path: Path; value: Json }[] = [{ path: [], value: root }];
  let looked = 0;
  for (let next = todo.pop(); next && found.length < most; next = todo.pop()) {
    const { path, value } = next;
    const key = path.at(-1);
    const branch = isBranch(value);
    const hit =
      (typeof key === 'string' && key.toLowerCase().includes(wanted)) ||
      (!branch && (typeof value === 'string' ? value : told(value)).toLowerCase().includes(wanted));
    if (hit) found.push(path);
    if (branch) {
      if (Array.isArray(value))
        for (let index = value.length - 1; index >= 0; index--)
          todo.push({ path: [...path, index], value: value[index] ?? null });
      else
        for (const [name, child] of Object.entries(value).reverse()) todo.push({ path: [...path, name], value: child });
    }
    if (++looked % 5_000 === 0) yield null;
  }
  yield found;
}
