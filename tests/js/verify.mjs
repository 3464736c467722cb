// Verifies a delivery with the Standard Webhooks library. SECRET, HEADERS (JSON), BODY (base64) → {"verified"}

import { Webhook } from 'standardwebhooks';
import { env, run } from './send.mjs';

await run(async () => {
  const [headers, body] = [JSON.parse(env('HEADERS')), Buffer.from(env('BODY'), 'base64')];
  new Webhook(env('SECRET')).verify(body.toString('utf8'), headers);
  let refused = false;
  try {
    new Webhook(env('SECRET')).verify(`${body.toString('utf8')} `, headers);
  } catch {
    refused = true;
  }
  return { verified: refused };
});
