// One client for queries and mutations by POST and subscriptions by WebSocket, on the same address.
import { Client, cacheExchange, fetchExchange, mapExchange, subscriptionExchange } from '@urql/core';
import { createClient as createSocket } from 'graphql-ws';
import { askToSignIn, token } from '../session/session';

/** The code with which the server closes a socket whose session is over. */
const UNAUTHORIZED = 4401;

function socketUrl(): string {
  const url = new URL('/graphql', location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}

/** For a signed-in person, or for nobody in particular. */
export function makeClient(): Client {
  const socket = createSocket({
    url: socketUrl(),
    lazy: true,
    connectionParams: () => {
      const known = token();
      return known ? { authorization: `Bearer ${known}` } : {};
    },
    retryAttempts: Number.MAX_SAFE_INTEGER,
    // From half a second to half a minute, with some chance, so that not all come back at once.
    retryWait: (retries) =>
      new Promise((resolve) => setTimeout(resolve, Math.min(500 * 2 ** retries, 30_000) * (0.75 + Math.random() / 2))),
    shouldRetry: (event) => !(event instanceof CloseEvent && event.code === UNAUTHORIZED),
    on: {
      closed: (event) => {
        if (event instanceof CloseEvent && event.code === UNAUTHORIZED && token()) askToSignIn();
      },
    },
  });
  return new Client({
    url: '/graphql',
    preferGetMethod: false,
    requestPolicy: 'cache-and-network',
    fetchOptions: (): RequestInit => {
      const known = token();
      return known ? { headers: { authorization: `Bearer ${known}` } } : {};
    },
    exchanges: [
      mapExchange({
        onError: (error) => {
          if (error.graphQLErrors.some((each) => each.extensions.code === 'UNAUTHENTICATED') && token()) askToSignIn();
        },
      }),
      cacheExchange,
      fetchExchange,
      subscriptionExchange({
        forwardSubscription: ({ query, variables }) => ({
          subscribe: (sink) => ({
            unsubscribe: socket.subscribe(
              { query: query ?? '', variables },
              {
                next: (result) => sink.next(result as Parameters<typeof sink.next>[0]),
                error: (cause) => sink.error(cause),
                complete: () => sink.complete(),
              },
            ),
          }),
        }),
      }),
    ],
  });
}
