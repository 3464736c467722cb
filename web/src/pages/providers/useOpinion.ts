// Checks a secret while it is typed. The server is the only judge.
import { useEffect, useState } from 'react';
import { useClient } from 'urql';

import type { ProviderKind } from '../../ui/ProviderName';
import { CheckSecret } from './queries';

export type Opinion = { refused: string | null; doubtful: string | null; isSimulator: boolean };

const NONE: Opinion = { refused: null, doubtful: null, isSimulator: false };
/** Milliseconds after the last key before the server is asked. */
const PAUSE = 300;

/** No opinion on an empty field, or if the server doesn't answer: it checks again when the form is sent. */
export function useOpinion(providerName: ProviderKind, secret: string): Opinion {
  const client = useClient();
  const [said, setSaid] = useState<{ of: string; opinion: Opinion }>();
  useEffect(() => {
    if (!secret) return;
    let left = false;
    const timer = setTimeout(() => {
      void client
        .mutation(CheckSecret, { input: { providerName, secret } })
        .toPromise()
        .then(({ data }) => {
          if (!left && data) setSaid({ of: secret, opinion: data.checkProviderSecret });
        });
    }, PAUSE);
    return () => {
      left = true;
      clearTimeout(timer);
    };
  }, [client, providerName, secret]);
  return secret && said?.of === secret ? said.opinion : NONE;
}
