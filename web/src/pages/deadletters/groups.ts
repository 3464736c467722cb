// Dead letters by error and provider. Values and functions over them.
import { statusOf } from '../../ui/Status';
import type { WebhookRow } from '../webhooks/queries';

export type Group = {
  key: string;
  provider: WebhookRow['provider'];
  error: string | null;
  /** The loaded ones, oldest first, because they have waited the longest. */
  rows: readonly WebhookRow[];
  count: number;
  oldest: string;
  newest: string;
};

export const keyOf = (providerId: string, error: string | null): string => `${providerId} ${error ?? ''}`;

/** The largest first. */
export function grouped(rows: readonly WebhookRow[]): Group[] {
  const groups = new Map<string, WebhookRow[]>();
  for (const row of rows) {
    const key = keyOf(row.provider.id, row.errorMessage);
    const group = groups.get(key);
    if (group) group.push(row);
    else groups.set(key, [row]);
  }
  return [...groups.entries()]
    .flatMap(([key, members]) => {
      const inOrder = [...members].sort((a, b) => (a.receivedAt < b.receivedAt ? -1 : 1));
      const [first, last] = [inOrder[0], inOrder.at(-1)];
      if (!first || !last) return [];
      return [
        {
          key,
          provider: first.provider,
          error: first.errorMessage,
          rows: inOrder,
          count: inOrder.length,
          oldest: first.receivedAt,
          newest: last.receivedAt,
        },
      ];
    })
    .sort((a, b) => b.count - a.count || (a.oldest < b.oldest ? -1 : 1));
}

/** The server's counts, with the rows that are loaded. */
export function joined(counted: readonly Omit<Group, 'key' | 'rows'>[], local: readonly Group[]): Group[] {
  const rows = new Map(local.map((group) => [group.key, group.rows]));
  return counted.map((group) => {
    const key = keyOf(group.provider.id, group.error);
    return { ...group, key, rows: rows.get(key) ?? [] };
  });
}

export type Known = {
  /** Dead letters that were loaded here, in their current state. */
  rows: ReadonlyMap<string, WebhookRow>;
  /** Those of them that were retried meanwhile. */
  retried: ReadonlySet<string>;
};

export const nothing: Known = { rows: new Map(), retried: new Set() };

/** Starts from the server's current list. Retried webhooks stay, so that their results can be seen. */
export function read(before: Known, rows: readonly WebhookRow[]): Known {
  const next = new Map(rows.map((row) => [row.webhookId, row]));
  const retried = new Set<string>();
  for (const id of before.retried) {
    const row = next.get(id) ?? before.rows.get(id);
    if (!row) continue;
    retried.add(id);
    next.set(id, row);
  }
  return { rows: next, retried };
}

/** Applies changes: new dead letters are added, known ones change in place. */
export function changed(before: Known, changes: readonly WebhookRow[]): Known {
  let rows: Map<string, WebhookRow> | undefined;
  let retried: Set<string> | undefined;
  for (const row of changes) {
    const known = (rows ?? before.rows).get(row.webhookId);
    const dead = statusOf(row) === 'dead';
    if (!known && !dead) continue;
    if (known && known.updatedAt > row.updatedAt) continue;
    rows ??= new Map(before.rows);
    rows.set(row.webhookId, row);
    if (known && !dead) {
      retried ??= new Set(before.retried);
      retried.add(row.webhookId);
    }
  }
  return rows ? { rows, retried: retried ?? before.retried } : before;
}

export type Tally = { all: number; succeeded: number; again: number; underWay: number };

/** Counts the results of retried webhooks. */
export function tally({ rows, retried }: Known): Tally {
  const tally: Tally = { all: retried.size, succeeded: 0, again: 0, underWay: 0 };
  for (const id of retried) {
    const row = rows.get(id);
    const status = row && statusOf(row);
    if (status === 'success') tally.succeeded += 1;
    else if (status === 'dead') tally.again += 1;
    else tally.underWay += 1;
  }
  return tally;
}

export const waiting = ({ rows }: Known): WebhookRow[] => [...rows.values()].filter((row) => statusOf(row) === 'dead');
