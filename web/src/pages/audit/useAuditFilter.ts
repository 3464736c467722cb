// The filter of the audit trail, which the address holds.
import { useMemo } from 'react';

import { type Search, useSearch } from '../../url';
import type { ServerFilter } from './entries';

const names = ['user', 'action', 'type', 'resource', 'from', 'to'] as const;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

export type AuditFilter = {
  search: Search;
  change: (change: Search, options?: { replace?: boolean }) => void;
  clear: () => void;
  isFiltered: boolean;
  /** The filter for GraphQL. Invalid parameters of the address are left out. */
  server: ServerFilter;
  /** The filter for the export. */
  query: string;
};

export function useAuditFilter(): AuditFilter {
  const [search, change] = useSearch();
  const { user, action, type, resource, from, to } = search;
  const filter = useMemo(() => {
    const uuid = (value: string | undefined) => (value && UUID.test(value) ? value : undefined);
    const time = (value: string | undefined) =>
      value && !Number.isNaN(Date.parse(value)) ? new Date(value).toISOString() : undefined;
    const asked = {
      userId: uuid(user),
      action,
      resourceType: type,
      resourceId: uuid(resource),
      from: time(from),
      to: time(to),
    };
    const given = Object.entries(asked).filter((pair): pair is [string, string] => Boolean(pair[1]));
    return { server: Object.fromEntries(given) as ServerFilter, query: new URLSearchParams(given).toString() };
  }, [user, action, type, resource, from, to]);
  return {
    search,
    change,
    clear: () => change(Object.fromEntries(names.map((name) => [name, undefined]))),
    isFiltered: filter.query !== '',
    ...filter,
  };
}
