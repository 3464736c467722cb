// Sends every sample payload of @octokit/webhooks-examples as GitHub would.
// WEBHOOK_URL, SECRET, OUT → {"sent","duplicates"}

import { randomUUID } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { sign } from '@octokit/webhooks-methods';
import { accepted, CONCURRENCY, env, forEach, post, run, sendAll, writeRecords } from './send.mjs';

const PRETTY_EVERY = 7;
const FORM_EVERY = 11;
const AGAIN_EVERY = 10;

/** The samples of api.github.com, and of each GitHub Enterprise Server beside it. */
function samples() {
  const manifest = createRequire(import.meta.url).resolve('@octokit/webhooks-examples/package.json');
  const root = path.dirname(manifest);
  const sources = readdirSync(root, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return sources
    .map(({ name }) => name)
    .sort()
    .flatMap((source) =>
      JSON.parse(readFileSync(path.join(root, source, 'index.json'), 'utf8')).flatMap(({ name, examples }) =>
        examples.map((payload, index) => ({ event: name, payload, what: `${source} ${name} #${index}` })),
      ),
    );
}

/** A hook's owner chooses between JSON and a form; the signature is over the bytes as sent. */
async function delivery({ event, payload, what }, index, secret) {
  const json = JSON.stringify(payload, null, index % PRETTY_EVERY === 0 ? 2 : undefined);
  const form = index % FORM_EVERY === 0;
  const text = form ? new URLSearchParams({ payload: json }).toString() : json;
  const deliveryId = randomUUID();
  const headers = {
    'content-type': form ? 'application/x-www-form-urlencoded' : 'application/json',
    'user-agent': 'GitHub-Hookshot/3f1a2b4',
    'x-github-event': event,
    'x-github-delivery': deliveryId,
    'x-hub-signature-256': await sign(secret, text),
  };
  return { what, deliveryId, eventType: event, headers, body: Buffer.from(text) };
}

await run(async () => {
  const [url, secret] = [env('WEBHOOK_URL'), env('SECRET')];
  const deliveries = await Promise.all(samples().map((sample, index) => delivery(sample, index, secret)));
  const records = await sendAll(url, deliveries);

  const again = deliveries.flatMap((sent, index) => (index % AGAIN_EVERY === 0 ? [[sent, records[index]]] : []));
  await forEach(again, CONCURRENCY, async ([sent, first]) => {
    const id = accepted(await post(url, sent.headers, sent.body), `${sent.what} again`, { duplicate: true });
    if (id !== first.webhookId) throw new Error(`${sent.what} again: ${id} is not its first id ${first.webhookId}`);
    first.duplicates += 1;
  });

  await writeRecords(records);
  return { sent: records.length, duplicates: again.length };
});
