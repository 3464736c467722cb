// The address holds the state of a page, so that a filter can be linked to, and "back" undoes it.
import { useCallback, useMemo } from 'react';
import { useSearchParams } from 'wouter';

export type Search = Readonly<Record<string, string | undefined>>;

/** The parameters of the address, and a way to change some of them (`undefined` or `''` removes one). */
export function useSearch(): [Search, (change: Search, options?: { replace?: boolean }) => void] {
  const [params, setParams] = useSearchParams();
  const search = useMemo(() => Object.fromEntries(params.entries()), [params]);
  const change = useCallback(
    (changes: Search, options?: { replace?: boolean }) => {
      setParams((before) => {
        const next = new URLSearchParams(before);
        for (const [name, value] of Object.entries(changes)) {
          if (value) next.set(name, value);
          else next.delete(name);
        }
        return next;
      }, options);
    },
    [setParams],
  );
  return [search, change];
}

/** `a,b` of the address as a list. */
export function listOf(value: string | undefined): string[] {
  return value ? value.split(',').filter(Boolean) : [];
}
