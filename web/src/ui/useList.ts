// A list that is loaded page by page.

import { useCallback, useEffect, useRef, useState } from 'react';
import type { CombinedError } from 'urql';
import { type TypedDocumentNode, useClient } from 'urql';

type Connection<Row> = {
  nodes: readonly Row[];
  pageInfo: { hasNextPage: boolean; endCursor: string | null };
};

export type List<Row> = {
  rows: readonly Row[];
  /** True until the first page is there. */
  isFirst: boolean;
  fetching: boolean;
  error: CombinedError | undefined;
  hasMore: boolean;
  more: () => void;
  /** Reads the list again from its beginning. The shown rows stay until then. */
  reload: () => void;
};

/** Rows of a connection; the query takes `$after`. New variables start the list again. */
export function useList<Data, Variables extends { after?: string | null }, Row>(
  query: TypedDocumentNode<Data, Variables>,
  variables: Omit<Variables, 'after'>,
  of: (data: Data) => Connection<Row> | null | undefined,
): List<Row> {
  const client = useClient();
  const key = JSON.stringify(variables);
  const [state, setState] = useState<{
    key: string;
    rows: readonly Row[];
    end: string | null;
    isFirst: boolean;
    fetching: boolean;
    error?: CombinedError;
  }>({
    key,
    rows: [],
    end: null,
    isFirst: true,
    fetching: true,
  });
  const latest = useRef({ variables, of, turn: 0 });
  latest.current.variables = variables;
  latest.current.of = of;

  const load = useCallback(
    async (after: string | null) => {
      const turn = ++latest.current.turn;
      setState((before) => ({ ...before, fetching: true, error: undefined }));
      const asked = { ...latest.current.variables, after } as Variables;
      const { data, error } = await client.query(query, asked, { requestPolicy: 'network-only' }).toPromise();
      if (turn !== latest.current.turn) return;
      const connection = data ? latest.current.of(data) : undefined;
      setState((before) =>
        connection
          ? {
              key,
              rows: after ? [...before.rows, ...connection.nodes] : connection.nodes,
              end: connection.pageInfo.hasNextPage ? connection.pageInfo.endCursor : null,
              isFirst: false,
              fetching: false,
              error,
            }
          : { ...before, key, fetching: false, error },
      );
    },
    [client, query, key],
  );
  useEffect(() => {
    setState({ key, rows: [], end: null, isFirst: true, fetching: true });
    void load(null);
    return () => {
      latest.current.turn += 1;
    };
  }, [load, key]);
  return {
    rows: state.rows,
    isFirst: state.isFirst,
    fetching: state.fetching,
    error: state.error,
    hasMore: state.end !== null,
    more: () => void (state.fetching || state.end === null ? undefined : load(state.end)),
    reload: () => void load(null),
  };
}
