// Queries whose answers are kept by who asked, and by nobody else: pages of long lists, large bodies.
import type { AnyVariables, Client, TypedDocumentNode } from '@urql/core';
import { CombinedError } from '@urql/core';
import { useCallback, useEffect, useState } from 'react';

import { makeClient } from './client';

let client: Client | undefined;

/** Throws a `CombinedError`, for answers that are incomplete too unless `partial` is asked for. */
export async function ask<Data, Variables extends AnyVariables>(
  query: TypedDocumentNode<Data, Variables>,
  variables: Variables,
  { partial = false }: { partial?: boolean } = {},
): Promise<Data> {
  client ??= makeClient({ cached: false });
  const { data, error } = await client.query(query, variables, { requestPolicy: 'network-only' }).toPromise();
  if (error && !(partial && data)) throw error;
  if (!data) throw new CombinedError({ networkError: new Error('The response is empty.') });
  return data;
}

export type Asked<Data> = {
  data: Data | undefined;
  error: Error | undefined;
  /** There is neither an answer nor an error yet. */
  loading: boolean;
  /** The old data stays until the new answer arrives. */
  again: () => void;
};

/** Asks while the component is mounted, and again when the variables change. `null` does not ask. */
export function useAsk<Data, Variables extends AnyVariables>(
  query: TypedDocumentNode<Data, Variables>,
  variables: Variables | null,
): Asked<Data> {
  const [state, setState] = useState<{ key: string; data?: Data; error?: Error } | null>(null);
  const [turn, setTurn] = useState(0);
  const key = JSON.stringify(variables);
  // biome-ignore lint/correctness/useExhaustiveDependencies: `turn` is what asks once more
  useEffect(() => {
    if (key === 'null') return;
    let left = false;
    ask(query, JSON.parse(key) as Variables).then(
      (data) => !left && setState({ key, data }),
      (error: Error) => !left && setState({ key, error }),
    );
    return () => {
      left = true;
    };
  }, [query, key, turn]);
  const again = useCallback(() => {
    setState((before) => (before?.error ? null : before));
    setTurn((before) => before + 1);
  }, []);
  const known = state?.key === key ? state : undefined;
  return { data: known?.data, error: known?.error, loading: key !== 'null' && !known, again };
}
