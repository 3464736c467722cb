// A destination that verifies deliveries with the senders' own libraries and secrets, one path each.
// SECRETS (JSON by path) → first line {"port"}; GET / returns the deliveries: [{"path","ok","what"}]

import { createServer } from 'node:http';
import { createNodeMiddleware, Webhooks } from '@octokit/webhooks';
import '@shopify/shopify-api/adapters/node';
import { shopifyApi } from '@shopify/shopify-api';
import { Webhook } from 'standardwebhooks';
import Stripe from 'stripe';
import { env } from './send.mjs';

const secrets = JSON.parse(env('SECRETS'));
const came = [];

const octokit = new Webhooks({ secret: secrets.octokit });
octokit.onAny(({ id, name, payload }) => {
  came.push({ path: '/octokit', ok: true, what: `${name} ${id} ${payload.zen}` });
});
octokit.onError((error) => {
  came.push({ path: '/octokit', ok: false, what: String(error) });
});
const middleware = createNodeMiddleware(octokit, { path: '/octokit', log: { debug() {}, info() {}, warn() {}, error() {} } });

const shopify = shopifyApi({
  apiKey: 'key',
  apiSecretKey: secrets.shopify,
  apiVersion: '2026-04',
  hostName: 'shop.example',
  isEmbeddedApp: false,
  logger: { level: -1 },
});
const stripe = new Stripe('sk_test_none');

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

/** The sender's headers under the names that its library looks for. */
function original(headers) {
  const renamed = Object.entries(headers).flatMap(([name, value]) =>
    name.startsWith('hookledger-original-') ? [[name.slice('hookledger-original-'.length), value]] : [],
  );
  return Object.fromEntries(renamed);
}

const verify = {
  '/shopify': async (request, response, body) => {
    const result = await shopify.webhooks.validate({ rawBody: body, rawRequest: request, rawResponse: response });
    if (!result.valid) throw new Error(JSON.stringify(result));
    return `${result.topic} ${result.domain} ${result.webhookId}`;
  },
  '/stripe': async ({ headers }, _response, body) => {
    const event = stripe.webhooks.constructEvent(body, headers['stripe-signature'], secrets.stripe);
    return `${event.type} ${event.id}`;
  },
  '/standard': async ({ headers }, _response, body) => {
    const theirs = original(headers);
    const event = new Webhook(secrets.standard).verify(body, theirs);
    return `${event.type} ${theirs['webhook-id']}`;
  },
  // With our own secret, like every destination.
  '/ours': async ({ headers }, _response, body) => {
    new Webhook(secrets.ours).verify(body, headers);
    return `${headers['hookledger-event-type']} ${headers['x-github-event']} ${headers['x-hub-signature-256']}`;
  },
};

const server = createServer(async (request, response) => {
  if (request.method === 'GET') {
    response.end(JSON.stringify(came));
    return;
  }
  if (await middleware(request, response)) {
    if (response.statusCode !== 200) came.push({ path: '/octokit', ok: false, what: String(response.statusCode) });
    return;
  }
  const body = await bodyOf(request);
  if (request.url === '/secret') {
    secrets.ours = body;
    response.end();
    return;
  }
  try {
    came.push({ path: request.url, ok: true, what: await verify[request.url](request, response, body) });
    response.end();
  } catch (error) {
    came.push({ path: request.url, ok: false, what: String(error) });
    response.statusCode = 400;
    response.end();
  }
});
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })));
