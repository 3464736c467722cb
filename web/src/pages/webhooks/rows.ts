// The loaded rows: pages of a long list. Pages near the view are kept; others can be fetched again.
// Everything here is a value and functions over it.
import type { WebhookRow } from './queries';

/** Rows of a page. */
export const PAGE = 100;
/** Pages that are kept, around those in view. */
const KEPT = 12;
/** Maximum number of live rows above the first page. */
const MOST_ON_TOP = 200;

export type Page = {
  /** The cursor before it; `null` for the newest. */
  after: string | null;
  /** `null` while they are not kept. */
  rows: readonly WebhookRow[] | null;
  /** Changes were missed: the old rows are shown until the page is read again. */
  old?: boolean;
  /** Number of its rows, also after they were released. */
  size: number;
  /** When its last row was received. Older rows belong to the next page. */
  oldest: string;
};

export type Rows = {
  /** Rows that arrived live, newest first. */
  top: readonly WebhookRow[];
  pages: readonly Page[];
  /** The cursor of the next page; `undefined` if there is none. */
  next: string | undefined;
  /** Number of new rows that are not shown, because the view is further down. */
  waiting: number;
  /** Rows between `top` and the pages are missing, or changes were missed: read again. */
  stale: boolean;
};

export const none: Rows = { top: [], pages: [], next: undefined, waiting: 0, stale: false };

export type Answer = { rows: readonly WebhookRow[]; next: string | undefined };

/** Before anything was loaded there is nothing to count. */
export const isLoaded = (list: Rows): boolean => list.pages.length > 0;

export function count(list: Rows): number {
  return list.pages.reduce((sum, page) => sum + page.size, list.top.length);
}

/** The page that an index is on, and its place there; -1 is above the first page. */
export function place(list: Rows, index: number): { page: number; at: number } {
  let at = index - list.top.length;
  if (at < 0) return { page: -1, at: index };
  for (let page = 0; page < list.pages.length; page++) {
    const size = list.pages[page]?.size ?? 0;
    if (at < size) return { page, at };
    at -= size;
  }
  return { page: list.pages.length, at };
}

export function rowAt(list: Rows, index: number): WebhookRow | undefined {
  const { page, at } = place(list, index);
  return page < 0 ? list.top[at] : list.pages[page]?.rows?.[at];
}

/** The index of a webhook in the list, or -1 if it is not loaded. */
export function indexOf(list: Rows, webhookId: string): number {
  const top = list.top.findIndex((row) => row.webhookId === webhookId);
  if (top >= 0) return top;
  let before = list.top.length;
  for (const page of list.pages) {
    const at = page.rows?.findIndex((row) => row.webhookId === webhookId) ?? -1;
    if (at >= 0) return before + at;
    before += page.size;
  }
  return -1;
}

/** Starts again with the newest rows. Rows that arrived meanwhile stay on top.  */
export function begun(answer: Answer, before: Rows): Rows {
  const newest = answer.rows[0]?.receivedAt ?? '';
  const there = new Set(answer.rows.map((row) => row.webhookId));
  const top = before.stale ? [] : before.top.filter((row) => row.receivedAt >= newest && !there.has(row.webhookId));
  return { ...withNext(none, null, answer), top };
}

/** Changes were missed while the view is further down: pages are read again in place. */
export function aged(list: Rows): Rows {
  return { ...list, waiting: list.waiting + 1, pages: list.pages.map((page) => ({ ...page, old: true })) };
}

/** Adds the next page. */
export function withNext(list: Rows, after: string | null, { rows, next }: Answer): Rows {
  // An empty page only tells how far a search has come. An empty first page means that nothing matches.
  if (rows.length === 0 && list.pages.length > 0) return { ...list, next };
  const page = { after, rows, size: rows.length, oldest: rows.at(-1)?.receivedAt ?? '' };
  return { ...list, pages: [...list.pages, page], next };
}

/** Replaces a page that was read again. If rows no longer match, it has rows of the next page at its end: they are cut off. */
export function withPage(list: Rows, index: number, answer: Answer): Rows {
  return {
    ...list,
    pages: list.pages.map((page, at) => {
      if (at !== index) return page;
      const rows = answer.rows.filter((row) => row.receivedAt >= page.oldest);
      return { ...page, rows, size: rows.length, old: false };
    }),
  };
}

/** Releases rows that are far from the view. */
export function trimmed(list: Rows, first: number, last: number): Rows {
  const from = place(list, first).page - KEPT / 2;
  const to = place(list, last).page + KEPT / 2;
  if (!list.pages.some((page, at) => page.rows && (at < from || at > to))) return list;
  return {
    ...list,
    pages: list.pages.map((page, at) => (page.rows && (at < from || at > to) ? { ...page, rows: null } : page)),
  };
}

export type Changes = {
  /** The latest state of each webhook that changed. */
  rows: ReadonlyMap<string, WebhookRow>;
  /** New webhooks that belong to the list, newest first. */
  created: readonly WebhookRow[];
};

/** Applies changes in place. New rows go on top if the top is in view; otherwise they are counted. */
export function changed(list: Rows, { rows, created }: Changes, atTop: boolean): Rows {
  if (!isLoaded(list)) return list;
  const fresh = created.filter((row) => indexOf(list, row.webhookId) < 0);
  const swap = (all: readonly WebhookRow[]) =>
    all.some((row) => isNewer(rows.get(row.webhookId), row))
      ? all.map((row) => latest(rows.get(row.webhookId), row))
      : all;
  const next = {
    ...list,
    top: swap(list.top),
    pages: list.pages.map((page) => {
      const swapped = page.rows && swap(page.rows);
      return swapped === page.rows ? page : { ...page, rows: swapped };
    }),
  };
  if (fresh.length === 0) return next;
  if (!atTop) return { ...next, waiting: next.waiting + fresh.length };
  const top = [...fresh, ...next.top].sort((a, b) =>
    a.receivedAt < b.receivedAt ? 1 : a.receivedAt > b.receivedAt ? -1 : 0,
  );
  if (top.length <= MOST_ON_TOP) return { ...next, top };
  // Too many arrived at once: the newest stay, and the rest is read again.
  return {
    ...next,
    top: top.slice(0, PAGE),
    pages: [{ after: null, rows: [], size: 0, oldest: '' }],
    next: undefined,
    stale: true,
  };
}

const isNewer = (one: WebhookRow | undefined, other: WebhookRow) =>
  one !== undefined && one.updatedAt >= other.updatedAt && one !== other;
const latest = (one: WebhookRow | undefined, other: WebhookRow) => (one && isNewer(one, other) ? one : other);
