// Sends webhooks as Shopify would. The signature is one HMAC, so Shopify's SDK is not needed.
// WEBHOOK_URL, SECRET, OUT → {"sent"}

import { createHmac, randomUUID } from 'node:crypto';
import { env, run, sendAll, writeRecords } from './send.mjs';

/** Shopify's numeric ids are larger than a double can hold exactly, so they are written as text. */
const BIG_ID = '9007199254740993820';

const order = {
  email: 'jon@example.com',
  total_price: '199.00',
  currency: 'CAD',
  line_items: [{ title: 'Crème brûlée', quantity: 1 }],
};
const TOPICS = [
  ['app/uninstalled', { name: 'Super Toys', domain: null }],
  ['carts/update', { token: 'exampleCartId', line_items: [] }],
  ['checkouts/create', { ...order, abandoned_checkout_url: 'https://jsmith.myshopify.com/1/recover?key=a%20b' }],
  ['customers/create', { first_name: 'Žofie', last_name: 'O’Neil', tags: '' }],
  ['customers/data_request', { shop_domain: 'jsmith.myshopify.com', orders_requested: [299938, 280263] }],
  ['fulfillments/update', { status: 'success', tracking_numbers: [] }],
  ['inventory_levels/update', { available: -3 }],
  ['orders/create', order],
  ['orders/paid', { ...order, financial_status: 'paid', note: '🎁 <b>gift</b> & "more"' }],
  ['products/update', { title: 'Example T-Shirt', body_html: null, variants: [{ price: '19.99', option1: null }] }],
];

function delivery([topic, fields], secret) {
  const text = JSON.stringify({ id: '@', ...fields }).replace('"@"', BIG_ID);
  const body = Buffer.from(text);
  const deliveryId = randomUUID();
  const headers = {
    'content-type': 'application/json',
    'user-agent': 'Shopify-Captain-Hook',
    'x-shopify-api-version': '2025-07',
    'x-shopify-event-id': randomUUID(),
    'x-shopify-hmac-sha256': createHmac('sha256', secret).update(body).digest('base64'),
    'x-shopify-shop-domain': 'jsmith.myshopify.com',
    'x-shopify-topic': topic,
    'x-shopify-triggered-at': new Date().toISOString(),
    'x-shopify-webhook-id': deliveryId,
  };
  return { what: topic, deliveryId, eventType: topic, headers, body };
}

await run(async () => {
  const [url, secret] = [env('WEBHOOK_URL'), env('SECRET')];
  const records = await sendAll(url, TOPICS.map((topic) => delivery(topic, secret)));
  await writeRecords(records);
  return { sent: records.length };
});
