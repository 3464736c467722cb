// Runs a mutation: whether it is running, and the notification about its result.
import { notifications } from '@mantine/notifications';
import { useCallback, useState } from 'react';
import { type AnyVariables, type TypedDocumentNode, useClient } from 'urql';

import { sentence } from '../api/errors';

/** `act` returns the data, or undefined after a failure, which a notification reports unless it is `quiet`. */
export function useAct<Data, Variables extends AnyVariables>(
  mutation: TypedDocumentNode<Data, Variables>,
  { quiet = false } = {},
) {
  const client = useClient();
  const [state, setState] = useState<{ busy: boolean; error?: string }>({ busy: false });
  const act = useCallback(
    async (variables: Variables, done?: string): Promise<Data | undefined> => {
      setState({ busy: true });
      const { data, error } = await client.mutation(mutation, variables).toPromise();
      const told = error ? sentence(error) : undefined;
      setState({ busy: false, error: told });
      if (told && !quiet) notifications.show({ color: 'red', title: 'Something went wrong', message: told });
      if (!told && done) notifications.show({ color: 'teal', message: done });
      return error ? undefined : data;
    },
    [client, mutation, quiet],
  );
  return { act, busy: state.busy, error: state.error, clear: () => setState({ busy: false }) };
}
