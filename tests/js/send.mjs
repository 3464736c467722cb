// Shared by the scripts: requests, bounded concurrency, checks of answers, and the record of sent webhooks.
// Details go to stderr; stdout holds one line of JSON for the caller.

import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';

export const CONCURRENCY = 8;
const TIMEOUT_MS = 300_000;
/** How long a provider sends again what the server is too busy for, and how often. */
const RESENDING_MS = 60_000;
const PAUSE_MS = 100;
const FAILURES_SHOWN = 10;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** The value of an environment variable that must be set. */
export function env(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

/** POSTs exactly these bytes. A redirect is an answer like any other, not to be followed. */
export async function post(url, headers, body) {
  const end = Date.now() + RESENDING_MS;
  for (;;) {
    const answer = await postOnce(url, headers, body);
    if (answer.status !== 503 || Date.now() > end) return answer;
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

async function postOnce(url, headers, body) {
  const response = await fetch(url, {
    method: 'POST',
    headers,
    body,
    redirect: 'manual',
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const text = await response.text();
  let json;
  try {
    json = JSON.parse(text);
  } catch {
    // Callers that need `json` report the text instead.
  }
  return { status: response.status, json, text };
}

/** Calls `work(item, index)` for all items, at most `limit` at once, and reports all failures together. */
export async function forEach(items, limit, work) {
  const results = new Array(items.length);
  const failures = [];
  const queue = items.entries();
  // The workers take from one iterator, so each item is taken once.
  const worker = async () => {
    for (const [index, item] of queue) {
      try {
        results[index] = await work(item, index);
      } catch (error) {
        failures.push(explain(error));
      }
    }
  };
  await Promise.all(Array.from({ length: limit }, worker));
  if (failures.length > 0) {
    const shown = failures.slice(0, FAILURES_SHOWN).join('\n  ');
    throw new Error(`${failures.length} of ${items.length} failed:\n  ${shown}`);
  }
  return results;
}

/** Throws unless the webhook was accepted, and as new or as a duplicate as expected. Returns its id. */
export function accepted(answer, what, { duplicate = false } = {}) {
  const { status, json } = answer;
  const fits =
    status === 200 &&
    json?.duplicate === duplicate &&
    UUID.test(json.webhook_id) &&
    (duplicate || ['pending', 'success'].includes(json.status));
  if (!fits) throw new Error(`${what}: expected 200 and "duplicate":${duplicate}, got ${shown(answer)}`);
  return json.webhook_id;
}

/** Throws unless the webhook was refused with this status and code, and a sentence that says why. */
export function refused(answer, what, { status, code }) {
  const { json } = answer;
  if (answer.status !== status || json?.code !== code || typeof json.error !== 'string') {
    throw new Error(`${what}: expected ${status} and code ${code}, got ${shown(answer)}`);
  }
}

/** What was sent, for the caller to compare with what was kept. */
export function record(webhookId, { deliveryId, eventType, headers, body }) {
  return {
    webhookId,
    deliveryId,
    eventType,
    contentType: headers['content-type'],
    sha256: createHash('sha256').update(body).digest('hex'),
    size: body.length,
    duplicates: 0,
    body: body.toString('base64'),
  };
}

/** Writes the records to the file OUT. Different events must have got different webhooks. */
export async function writeRecords(records) {
  const ids = new Set(records.map(({ webhookId }) => webhookId));
  if (ids.size !== records.length) throw new Error(`${records.length} events share ${ids.size} webhook ids`);
  await writeFile(env('OUT'), JSON.stringify(records));
}

/** Sends all deliveries, expects each to be accepted as new, and returns their records. */
export function sendAll(url, deliveries) {
  return forEach(deliveries, CONCURRENCY, async (delivery) => {
    const answer = await post(url, delivery.headers, delivery.body);
    return record(accepted(answer, delivery.what), delivery);
  });
}

/** Runs a script's `main` and prints its result as the last line of stdout. */
export async function run(main) {
  try {
    console.log(JSON.stringify(await main()));
  } catch (error) {
    console.error(explain(error));
    process.exitCode = 1;
  }
}

/** `fetch` hides what went wrong ("fetch failed") in the cause. */
function explain(error) {
  return error.cause ? `${error.message}: ${error.cause.message || error.cause.code}` : error.message;
}

function shown({ status, text }) {
  return `${status} ${text.slice(0, 300)}`;
}
