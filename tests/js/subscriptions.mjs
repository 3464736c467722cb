// Drives subscriptions with the client `graphql-ws`, and the protocol itself with bare sockets.
// GRAPHQL_URL, OTHER_URL (another node), TOKEN, ADMIN_TOKEN, ORGANIZATION_ID, WEBHOOK_URL, SECRET
// → {"changes":[…],"reconnected":…,"codes":{…},…}

import { createHmac, randomUUID } from 'node:crypto';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { env, post, run } from './send.mjs';

const TOKEN = env('TOKEN');
const PROTOCOL = 'graphql-transport-ws';
// The limit of every wait, long enough for the slowest machine.
const LIMIT = 300_000;
const url = (name) => env(name).replace(/^http/, 'ws');
const CHANGED = `subscription($id: ID!, $filter: WebhookFilter) {
  webhookChanged(organizationId: $id, filter: $filter) { kind webhook { providerEventId status provider { providerName } } }
}`;
const variables = { id: env('ORGANIZATION_ID') };

/** Rejects when a promise takes too long. */
const within = (promise, what, limit = LIMIT) =>
  Promise.race([
    promise,
    new Promise((_, reject) => setTimeout(() => reject(new Error(`${what} took too long`)), limit).unref()),
  ]);

async function deliver(body = '{}') {
  const delivery = randomUUID();
  const headers = {
    'content-type': 'application/json',
    'x-github-event': 'push',
    'x-github-delivery': delivery,
    'x-hub-signature-256': `sha256=${createHmac('sha256', env('SECRET')).update(body).digest('hex')}`,
  };
  const { status } = await post(env('WEBHOOK_URL'), headers, body);
  if (status !== 200) throw new Error(`a delivery was answered ${status}`);
  return delivery;
}

/** A subscription's results as they come, and what takes the next that is wished for. */
function watch(client, query, variables) {
  const seen = [];
  let wake = () => {};
  const state = { error: null, done: false };
  const stop = client.subscribe(
    { query, variables },
    {
      next: (result) => (seen.push(result), wake()),
      error: (error) => ((state.error = error), wake()),
      complete: () => ((state.done = true), wake()),
    },
  );
  const until = async (wished) => {
    for (;;) {
      const found = seen.find(wished);
      if (found) return found;
      if (state.error) throw state.error;
      await new Promise((resolve) => (wake = resolve));
    }
  };
  return { stop, until: (wished, what) => within(until(wished), what), seen, state };
}

const client = (where, options = {}) =>
  createClient({
    url: url(where),
    webSocketImpl: WebSocket,
    connectionParams: { authorization: `Bearer ${TOKEN}` },
    retryAttempts: 5,
    retryWait: () => new Promise((resolve) => setTimeout(resolve, 50)),
    ...options,
  });

const idOf = (result) => result.data?.webhookChanged.webhook?.providerEventId;
const of = (delivery) => (result) => idOf(result) === delivery;

/** Delivers until a watcher hears of one: it begins to watch a moment after it asked to. */
async function heard(watcher) {
  const sent = new Set();
  const hearing = watcher.until((result) => sent.has(idOf(result)), 'a change');
  for (;;) {
    sent.add(await deliver());
    const found = await Promise.race([hearing, new Promise((resolve) => setTimeout(resolve, 1000, null))]);
    if (found) return { delivery: idOf(found), found };
  }
}

/** A bare socket: says these messages, and tells how it was closed. */
function converse(messages, { protocol = PROTOCOL, headers = {}, onMessage = () => {} } = {}) {
  return within(
    new Promise((resolve, reject) => {
      const socket = new WebSocket(url('GRAPHQL_URL'), protocol, { headers });
      const received = [];
      socket.on('open', () => messages.forEach((message) => socket.send(message)));
      socket.on('message', (data) => {
        const message = JSON.parse(data.toString());
        received.push(message);
        onMessage(socket, message);
      });
      socket.on('close', (code) => resolve({ code, received }));
      socket.on('unexpected-response', (request, response) => {
        resolve({ status: response.statusCode, received });
        request.destroy();
      });
      socket.on('error', (error) => (error.message.includes('Unexpected') ? undefined : reject(error)));
    }),
    'a close',
  );
}

const json = (message) => JSON.stringify(message);
const init = (token = TOKEN) => json({ type: 'connection_init', payload: { authorization: `Bearer ${token}` } });
const subscribe = (id, query = CHANGED, more = { variables }) =>
  json({ type: 'subscribe', id, payload: { query, ...more } });
const code = async (...given) => {
  const { code, status } = await converse(...given);
  return code ?? status;
};

async function closeCodes() {
  const foreign = { headers: { origin: 'https://evil.example.org' } };
  return {
    notJson: await code([init(), 'nonsense']),
    unknownType: await code([init(), json({ type: 'start', id: '1' })]),
    binary: await code([Buffer.from([1, 2, 3])]),
    tooLarge: await code([init(), subscribe('1', `{ ${' '.repeat(200_000)} __typename }`)]),
    beforeInit: await code([subscribe('1')]),
    badToken: await code([init('nonsense')]),
    noToken: await code([json({ type: 'connection_init' })]),
    silence: await code([]),
    sameId: await code([init(), subscribe('1'), subscribe('1')]),
    secondInit: await code([init(), init()]),
    noProtocol: await code([], { protocol: [] }),
    twoProtocols: await code([subscribe('1')], { protocol: ['graphql-ws', PROTOCOL] }),
    foreignOrigin: await code([], foreign),
    tooManySockets: await tooManySockets(env('ADMIN_TOKEN')),
  };
}

/** Opens sockets of somebody who has none until one is refused, and tells how many there were. */
async function tooManySockets(token) {
  const open = [];
  try {
    for (let count = 1; count < 50; count += 1) {
      const answer = await within(
        new Promise((resolve) => {
          const socket = new WebSocket(url('GRAPHQL_URL'), PROTOCOL);
          open.push(socket);
          socket.on('open', () => socket.send(init(token)));
          socket.on('message', () => resolve('open'));
          socket.on('close', (code) => resolve(code));
        }),
        'a socket',
      );
      if (answer !== 'open') return { code: answer, after: count - 1 };
    }
    return null;
  } finally {
    await Promise.all(
      open.map((socket) => new Promise((resolve) => (socket.readyState === 3 ? resolve() : (socket.on('close', resolve), socket.close())))),
    );
  }
}

/** What operations that are not subscriptions, or are refused, are answered on a bare socket. */
async function answers() {
  const bomb = `{ ${Array.from({ length: 200 }, (_, n) => `a${n}: __typename`).join(' ')} }`;
  const stranger = subscribe('stranger', CHANGED, { variables: { id: 'bm9uc2Vuc2U' } });
  const many = Array.from({ length: 40 }, (_, n) => subscribe(`many-${n}`));
  const wanted = ['query', 'bad', 'bomb', 'stranger'];
  const got = {};
  let acks = 0;
  let limited = 0;
  await converse(
    [init(), json({ type: 'ping', payload: { n: 7 } }), subscribe('query', '{ viewer { isSuperAdmin } }', {}), subscribe('bad', '{ nonsense }', {}), subscribe('bomb', bomb, {}), stranger, ...many],
    {
      onMessage: (socket, message) => {
        if (message.type === 'connection_ack') acks += 1;
        if (message.type === 'pong') got.pong = message.payload;
        if (message.id?.startsWith('many-') && message.type === 'error') {
          limited += message.payload[0].extensions.code === 'LIMIT_EXCEEDED' ? 1 : 0;
        }
        if (message.id && message.type !== 'complete' && !message.id.startsWith('many-')) {
          const errors = message.type === 'error' ? message.payload : message.payload.errors;
          got[message.id] = [message.type, errors?.[0].extensions.code ?? message.payload.data];
        }
        if (wanted.every((id) => got[id]) && limited > 0) socket.close(1000);
      },
    },
  );
  return { ...got, acks, limited };
}

/** Ends operations and begins others with their id at once: what is heard is about the last one only. */
async function reusedId() {
  const told = [];
  const turn = (id) => [subscribe(id), json({ type: 'complete', id })];
  await converse([init(), ...turn('1'), ...turn('1'), subscribe('1', '{ viewer { isSuperAdmin } }', {})], {
    onMessage: (socket, message) => {
      if (message.id) told.push(message.type);
      if (message.type === 'complete') socket.send(json({ type: 'ping' }));
      if (message.type === 'pong') socket.close(1000);
    },
  });
  return told;
}

await run(async () => {
  const result = {};

  const other = client('OTHER_URL');
  const watcher = watch(other, CHANGED, variables);
  const filtered = watch(other, CHANGED, { ...variables, filter: { eventType: 'nothing-like-it' } });
  const ticks = watch(other, 'subscription($id: ID) { analyticsTick(organizationId: $id) { buckets { counts { received } } } }', variables);
  const first = await heard(watcher);
  result.first = first.found.data.webhookChanged;
  const done = await watcher.until(
    (change) => of(first.delivery)(change) && change.data.webhookChanged.webhook.status === 'SUCCESS',
    'a success',
  );
  result.done = done.data.webhookChanged.webhook.status;
  const tick = await ticks.until((tick) => tick.data.analyticsTick.buckets.some((bucket) => bucket.counts.received > 0), 'a tick');
  result.ticked = tick.data.analyticsTick.buckets.length > 0;
  result.filtered = filtered.seen.length;
  await other.dispose();

  let sockets = 0;
  let current;
  const stubborn = client('GRAPHQL_URL', { on: { connected: (socket) => ((sockets += 1), (current = socket)) } });
  const survivor = watch(stubborn, CHANGED, variables);
  await heard(survivor);
  current.terminate();
  await heard(survivor);
  result.sockets = sockets;
  await stubborn.dispose();

  const refused = watch(client('GRAPHQL_URL', { connectionParams: {}, retryAttempts: 0 }), CHANGED, variables);
  result.refused = await refused.until(() => false, 'a refusal').catch((event) => event.code);

  result.answers = await answers();
  result.reusedId = await reusedId();
  result.codes = await closeCodes();

  // The organization is deactivated: its users are signed out, and their sockets are closed.
  const ended = await converse([init(), subscribe('1')], {
    onMessage: async (_, message) => {
      if (message.type !== 'connection_ack') return;
      const query = 'mutation($id: ID!) { setOrganizationActive(input: {id: $id, isActive: false}) { organization { id } } }';
      await fetch(env('GRAPHQL_URL'), {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${env('ADMIN_TOKEN')}` },
        body: json({ query, variables }),
      });
    },
  });
  result.ended = ended.code;
  return result;
});
