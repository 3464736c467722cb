// The list, loaded while scrolling and kept up to date by changes.
import { useCallback, useEffect, useMemo, useRef, useState } from 'react';
import { useSubscription } from 'urql';

import { ask } from '../../api/ask';
import { useConnection } from '../../api/connection';
import { type Filter, followed, matches, serverFilter } from './filter';
import { WebhookChangedSubscription, type WebhookRow, WebhooksQuery } from './queries';
import {
  type Answer,
  aged,
  begun,
  changed,
  count,
  isLoaded,
  none,
  PAGE,
  place,
  type Rows,
  trimmed,
  withNext,
  withPage,
} from './rows';

/** Milliseconds between two updates of the list; changes in between are shown together. */
const FLUSH_MS = 250;
/** After a burst of changes, the list is read again at most this often. */
const RELOAD_MS = 2_000;
/** Maximum number of changes that wait to be shown; beyond it, the list is read again. */
const MOST_WAITING = 1_000;
/** A search that finds little continues automatically this many times, 10,000 webhooks each. */
const SEARCH_ON = 5;

export type RowsAtHand = {
  list: Rows;
  loading: boolean;
  error: Error | undefined;
  /** The error that keeps changes from arriving. */
  interrupted: Error | undefined;
  /** How far a search has come that found little. The user decides whether it continues. */
  paused: boolean;
  /** Takes the rows in view: loads missing ones, and releases distant ones. */
  look: (first: number, last: number) => void;
  /** Reads again from the newest. The shown rows stay until then. */
  reload: () => void;
  /** Continues after an error or a pause. */
  goOn: () => void;
  /** Takes a row that an action changed. */
  replace: (row: WebhookRow) => void;
};

export function useRows(
  { slug, organizationId }: { slug: string; organizationId: string },
  filter: Filter,
  { live, atTop }: { live: boolean; atTop: () => boolean },
): RowsAtHand {
  const [list, setList] = useState(none);
  const [error, setError] = useState<Error>();
  const [loading, setLoading] = useState(true);
  const [paused, setPaused] = useState(false);
  // The running loads, by name. A new filter voids them all.
  const running = useRef(new Set<string>());
  const era = useRef(0);
  const now = useRef({ list, filter });
  now.current = { list, filter };
  const key = useMemo(() => JSON.stringify(serverFilter(filter)), [filter]);

  const load = useCallback(
    async (name: string, after: string | null, take: (answer: Answer) => void) => {
      if (running.current.has(name)) return;
      running.current.add(name);
      const mine = era.current;
      try {
        const answer = await page(slug, key, after);
        if (mine !== era.current) return;
        take(answer);
        setError(undefined);
      } catch (cause) {
        if (mine === era.current) setError(cause instanceof Error ? cause : new Error(String(cause)));
      } finally {
        if (mine === era.current) {
          running.current.delete(name);
          setLoading(false);
        }
      }
    },
    [slug, key],
  );

  const reload = useCallback(() => {
    era.current += 1;
    running.current.clear();
    setPaused(false);
    void load('first', null, (answer) => setList((before) => begun(answer, before)));
  }, [load]);

  useEffect(() => {
    setList(none);
    setLoading(true);
    setError(undefined);
    reload();
    return () => {
      era.current += 1;
      running.current.clear();
    };
  }, [reload]);

  const more = useCallback(() => {
    const { next } = now.current.list;
    if (next !== undefined) void load('next', next, (answer) => setList((before) => withNext(before, next, answer)));
  }, [load]);

  // A search continues automatically until its results fill the window.
  const empty = useRef(0);
  useEffect(() => {
    if (!isLoaded(list) || list.next === undefined || count(list) >= PAGE / 2 || paused || error) {
      if (count(list) >= PAGE / 2) empty.current = 0;
      return;
    }
    empty.current += 1;
    if (empty.current > SEARCH_ON) setPaused(true);
    else more();
  }, [list, more, paused, error]);

  const view = useRef<readonly [number, number]>([0, 0]);
  const look = useCallback(
    (first: number, last: number) => {
      view.current = [first, last];
      const { list: rows } = now.current;
      if (!isLoaded(rows)) return;
      for (let at = Math.max(place(rows, first).page, 0); at <= place(rows, last).page; at++) {
        const missing = rows.pages[at];
        if (missing && (!missing.rows || missing.old))
          void load(`page ${at}`, missing.after, (answer) => setList((before) => withPage(before, at, answer)));
      }
      setList((before) => trimmed(before, first, last));
      if (last > count(rows) - PAGE / 2 && !paused) more();
    },
    [load, more, paused],
  );

  // Rows in view may have been released, or be outdated.
  // biome-ignore lint/correctness/useExhaustiveDependencies: each change of the list may have let rows in view go
  useEffect(() => look(...view.current), [look, list]);

  const goOn = useCallback(() => {
    setError(undefined);
    setPaused(false);
    empty.current = 0;
    if (isLoaded(now.current.list)) more();
    else reload();
  }, [more, reload]);

  const replace = useCallback(
    (row: WebhookRow) =>
      setList((before) => changed(before, { rows: new Map([[row.webhookId, row]]), created: [] }, false)),
    [],
  );

  const interrupted = useFollowing({ organizationId, filter, live, loaded: isLoaded(list), atTop, setList, reload });
  useReloading(list.stale, reload);
  return { list, loading, error, interrupted, paused, look, reload, goOn, replace };
}

async function page(slug: string, filter: string, after: string | null): Promise<Answer> {
  const asked = JSON.parse(filter) as ReturnType<typeof serverFilter>;
  const { organization } = await ask(WebhooksQuery, { slug, filter: asked, first: PAGE, after });
  if (!organization) throw new Error('Organization not found.');
  const { nodes, pageInfo, searchedTo } = organization.webhooks;
  return { rows: nodes, next: searchedTo ?? (pageInfo.hasNextPage ? (pageInfo.endCursor ?? undefined) : undefined) };
}

/** Receives changes, and passes them on in batches. */
function useFollowing({
  organizationId,
  filter,
  live,
  loaded,
  atTop,
  setList,
  reload,
}: {
  organizationId: string;
  filter: Filter;
  live: boolean;
  loaded: boolean;
  atTop: () => boolean;
  setList: (change: (before: Rows) => Rows) => void;
  reload: () => void;
}): Error | undefined {
  const waiting = useRef({ rows: new Map<string, WebhookRow>(), created: new Set<string>(), missed: false });
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const current = useRef({ filter, atTop, reload, loaded });
  current.current = { filter, atTop, reload, loaded };

  const flush = useCallback(() => {
    timer.current = undefined;
    // Changes wait until the list is loaded.
    if (!current.current.loaded) {
      timer.current = setTimeout(flush, FLUSH_MS);
      return;
    }
    const { rows, created, missed } = waiting.current;
    waiting.current = { rows: new Map(), created: new Set(), missed: false };
    const top = current.current.atTop();
    if (missed) {
      // Below the top, the place is kept, and new rows are counted.
      if (top) current.current.reload();
      else setList(aged);
      return;
    }
    const fresh = current.current.filter.text
      ? []
      : [...rows.values()].filter((row) => created.has(row.webhookId) && matches(current.current.filter, row));
    setList((before) => changed(before, { rows, created: fresh }, top));
  }, [setList]);

  const soon = useCallback(() => {
    timer.current ??= setTimeout(flush, FLUSH_MS);
  }, [flush]);
  useEffect(() => () => clearTimeout(timer.current), []);

  const followedKey = JSON.stringify(followed(filter));
  const variables = useMemo(
    () => ({ organizationId, filter: JSON.parse(followedKey) as ReturnType<typeof followed> }),
    [organizationId, followedKey],
  );
  const [{ error }] = useSubscription({ query: WebhookChangedSubscription, variables, pause: !live }, (_, data) => {
    const { kind, webhook } = data.webhookChanged;
    const into = waiting.current;
    if (!webhook || kind === 'MISSED' || into.rows.size >= MOST_WAITING) {
      into.missed = true;
    } else {
      into.rows.set(webhook.webhookId, webhook);
      if (kind === 'CREATED') into.created.add(webhook.webhookId);
    }
    soon();
    return data;
  });

  // Changes during a lost connection, or while live was off, were missed.
  const { reconnections } = useConnection();
  const seen = useRef(reconnections);
  useEffect(() => {
    if (seen.current === reconnections) return;
    seen.current = reconnections;
    if (!live) return;
    waiting.current.missed = true;
    soon();
  }, [reconnections, live, soon]);
  const wasLive = useRef(live);
  useEffect(() => {
    if (live && !wasLive.current) {
      waiting.current.missed = true;
      soon();
    }
    wasLive.current = live;
  }, [live, soon]);
  return live ? error : undefined;
}

function useReloading(stale: boolean, reload: () => void): void {
  useEffect(() => {
    if (!stale) return;
    const timer = setTimeout(reload, RELOAD_MS);
    return () => clearTimeout(timer);
  }, [stale, reload]);
}
