// The differences between two JSON values, by path.
import { isBranch, type Json, type Path, told } from './json';

export type Difference = { path: Path; kind: 'added' | 'removed' | 'changed'; before?: Json; after?: Json };

/** Maximum number of differences. */
export const MOST = 1_000;
/** Lists up to this length are compared by content, longer ones by index. */
const COMPARED = 300;

/** In the order of the first value; additions of the second follow. */
export function diff(before: Json, after: Json): Difference[] {
  const found: Difference[] = [];
  const todo: [Path, Json | undefined, Json | undefined][] = [[[], before, after]];
  for (let next = todo.pop(); next && found.length < MOST; next = todo.pop()) {
    const [path, a, b] = next;
    if (a === undefined && b === undefined) continue;
    if (a === undefined) found.push({ path, kind: 'added', after: b });
    else if (b === undefined) found.push({ path, kind: 'removed', before: a });
    else if (Array.isArray(a) && Array.isArray(b)) todo.push(...pairsOfLists(path, a, b).reverse());
    else if (isBranch(a) && isBranch(b) && !Array.isArray(a) && !Array.isArray(b))
      todo.push(...pairsOfObjects(path, a, b).reverse());
    else if (isBranch(a) || isBranch(b) || told(a) !== told(b))
      found.push({ path, kind: 'changed', before: a, after: b });
  }
  return found;
}

type Pair = [Path, Json | undefined, Json | undefined];
type Named = { [key: string]: Json };

function pairsOfObjects(path: Path, a: Named, b: Named): Pair[] {
  const own = (of: Named, key: string) => (Object.hasOwn(of, key) ? of[key] : undefined);
  const keys = [...Object.keys(a), ...Object.keys(b).filter((key) => !Object.hasOwn(a, key))];
  return keys.map((key) => [[...path, key], own(a, key), own(b, key)]);
}

/** Common elements are paired. Of the others, neighbours are paired, so that a changed element counts as changed. */
function pairsOfLists(path: Path, a: readonly Json[], b: readonly Json[]): Pair[] {
  if (a.length > COMPARED || b.length > COMPARED) {
    return Array.from({ length: Math.max(a.length, b.length) }, (_, index) => [[...path, index], a[index], b[index]]);
  }
  const [as, bs] = [a.map(whole), b.map(whole)];
  const common = longest(as, bs);
  const pairs: Pair[] = [];
  let [i, j] = [0, 0];
  for (const [ni, nj] of [...common, [a.length, b.length] as const]) {
    while (i < ni && j < nj) {
      pairs.push([[...path, j], a[i], b[j]]);
      i++;
      j++;
    }
    for (; i < ni; i++) pairs.push([[...path, i], a[i], undefined]);
    for (; j < nj; j++) pairs.push([[...path, j], undefined, b[j]]);
    i = ni + 1;
    j = nj + 1;
  }
  return pairs;
}

const whole = (value: Json): string => JSON.stringify(value);

/** The longest common subsequence, as pairs of indices. */
function longest(a: readonly string[], b: readonly string[]): (readonly [number, number])[] {
  const width = b.length + 1;
  const lengths = new Uint16Array((a.length + 1) * width);
  const length = (i: number, j: number) => lengths[i * width + j] ?? 0;
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      lengths[i * width + j] = a[i] === b[j] ? length(i + 1, j + 1) + 1 : Math.max(length(i + 1, j), length(i, j + 1));
    }
  }
  const found: [number, number][] = [];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) found.push([i++, j++]);
    else if (length(i + 1, j) >= length(i, j + 1)) i++;
    else j++;
  }
  return found;
}
