// Sends webhooks signed by the Standard Webhooks library, under both families of header names.
// WEBHOOK_URL, SECRET, OUT → {"sent"}

import { randomBytes } from 'node:crypto';
import { Webhook } from 'standardwebhooks';
import { env, post, refused, run, sendAll, writeRecords } from './send.mjs';

const PAYLOADS = 20;

/** The `svix-` names are the older ones; Svix's own library signs with this one too. */
function delivery(prefix, index, secret) {
  const eventType = ['invoice.paid', 'contact.created', 'message.attempt.exhausted'][index % 3];
  const timestamp = new Date();
  const data = { index, note: 'žluťoučký kůň 🐎', list: Array(index).fill(null) };
  const payload = { type: eventType, timestamp, data };
  const text = JSON.stringify(payload, null, index % 4 === 0 ? 2 : undefined);
  const deliveryId = `msg_${randomBytes(16).toString('hex')}`;
  const headers = {
    'content-type': 'application/json',
    [`${prefix}-id`]: deliveryId,
    [`${prefix}-timestamp`]: String(Math.floor(timestamp.getTime() / 1000)),
    [`${prefix}-signature`]: new Webhook(secret).sign(deliveryId, timestamp, text),
  };
  return { what: `${prefix}- #${index}`, deliveryId, eventType, headers, body: Buffer.from(text) };
}

await run(async () => {
  const [url, secret] = [env('WEBHOOK_URL'), env('SECRET')];

  const forged = delivery('webhook', 0, `whsec_${randomBytes(24).toString('base64')}`);
  const answer = await post(url, forged.headers, forged.body);
  refused(answer, 'a wrong secret', { status: 401, code: 'signature_invalid' });

  const indices = Array.from({ length: PAYLOADS }, (_, index) => index);
  const deliveries = ['webhook', 'svix'].flatMap((prefix) => indices.map((index) => delivery(prefix, index, secret)));
  const records = await sendAll(url, deliveries);
  await writeRecords(records);
  return { sent: records.length };
});
