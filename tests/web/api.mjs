// Helpers of the walks: signed webhooks, a destination, and GraphQL for steps that a walk does not test.
import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';

import { base } from './browser.mjs';

const RESENDING_MS = 60_000;
const PAUSE_MS = 100;
let serial = 0;

/** Sends a webhook as GitHub does. */
export async function sendGithub(slug, secret, event, body, { delivery = `walk-${process.pid}-${++serial}`, signature } = {}) {
  // Like a provider, it sends a webhook again if the server is too busy.
  for (const end = Date.now() + RESENDING_MS; ; await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))) {
    const answer = await sendOnce(slug, secret, event, body, delivery, signature);
    if (answer.status !== 503 || Date.now() > end) return answer;
  }
}

async function sendOnce(slug, secret, event, body, delivery, signature) {
  const bytes = typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body);
  const mac = signature ?? createHmac('sha256', secret).update(bytes).digest('hex');
  const response = await fetch(`${base}/webhooks/${slug}/github`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      'x-github-event': event,
      'x-github-delivery': delivery,
      'x-hub-signature-256': `sha256=${mac}`,
    },
    body: bytes,
  });
  return { status: response.status, body: await response.json() };
}

/** A destination on this machine: answers what `answer` says at the time. */
export async function destination() {
  const sink = { status: 200, requests: [], url: '' };
  const server = createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
      sink.requests.push({ headers: request.headers, body: Buffer.concat(chunks).toString() });
      response.writeHead(sink.status, { 'content-type': 'text/plain' }).end(sink.status < 300 ? 'thanks' : '<script>alert("from the destination")</script>');
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  server.unref();
  sink.url = `http://127.0.0.1:${server.address().port}/hooks`;
  return sink;
}

/** Asks GraphQL in the session of a page. */
export async function graphql(page, query, variables = {}) {
  const token = await page.evaluate(() => localStorage.getItem('hookledger.session'));
  const response = await fetch(`${base}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
    body: JSON.stringify({ query, variables }),
  });
  const { data, errors } = await response.json();
  if (errors) throw new Error(JSON.stringify(errors));
  return data;
}
