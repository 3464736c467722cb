// One client for queries and mutations by POST and subscriptions by WebSocket, on the same address.
import { Client, cacheExchange, fetchExchange, mapExchange, subscriptionExchange } from '@urql/core';
import { createClient as createSocket } from 'graphql-ws';
import { askToSignIn, token } from '../session/session';
import { connectionIs } from './connection';

/** The close code of a socket whose session ended. */
const UNAUTHORIZED = 4401;

function socketUrl(): string {
  const url = new URL('/graphql', location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}

/**
 * For a signed-in user, or without a session. Without a cache it keeps no answers: for long lists and large bodies,
 * whose pages limit their own memory.
 */
export function makeClient({ cached = true }: { cached?: boolean } = {}): Client {
  // A socket whose other end vanished looks open for minutes, so it has to answer pings.
  let open: WebSocket | undefined;
  let silence: ReturnType<typeof setTimeout> | undefined;
  const socket = createSocket({
    url: socketUrl(),
    lazy: true,
    keepAlive: 15_000,
    connectionParams: () => {
      const known = token();
      return known ? { authorization: `Bearer ${known}` } : {};
    },
    retryAttempts: Number.MAX_SAFE_INTEGER,
    // From half a second to half a minute, with jitter, so that not all clients reconnect at once.
    retryWait: (retries) =>
      new Promise((resolve) => setTimeout(resolve, Math.min(500 * 2 ** retries, 30_000) * (0.75 + Math.random() / 2))),
    shouldRetry: (event) => !(event instanceof CloseEvent && event.code === UNAUTHORIZED),
    on: {
      connecting: (isRetry) => connectionIs(isRetry ? 'lost' : 'connecting'),
      connected: (made, _payload, wasRetry) => {
        if (made instanceof WebSocket) open = made;
        connectionIs('connected', wasRetry);
      },
      ping: (received) => {
        if (received) return;
        clearTimeout(silence);
        silence = setTimeout(() => open?.close(4408, 'no answer'), 10_000);
      },
      pong: () => clearTimeout(silence),
      closed: (event) => {
        clearTimeout(silence);
        connectionIs(event instanceof CloseEvent && event.code === 1000 ? 'idle' : 'lost');
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
      ...(cached ? [cacheExchange] : []),
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
