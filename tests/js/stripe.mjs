// Sends Stripe events signed by Stripe's own library, and some that must be refused.
// WEBHOOK_URL, SECRET, OUT → {"sent"}

import { randomBytes } from 'node:crypto';
import Stripe from 'stripe';
import { env, post, refused, run, sendAll, writeRecords } from './send.mjs';

const now = Math.floor(Date.now() / 1000);
const id = (prefix) => `${prefix}_${randomBytes(12).toString('hex')}`;

const charge = { object: 'charge', amount: 2000, currency: 'usd', paid: true };
const intent = { object: 'payment_intent', amount: 1099, currency: 'eur', metadata: { order: '№ 6735' } };
const subscription = {
  object: 'subscription',
  status: 'active',
  items: {
    object: 'list',
    data: [
      { object: 'subscription_item', price: { object: 'price', recurring: { interval: 'month' }, unit_amount: 0 } },
      { object: 'subscription_item', price: { object: 'price', tiers: [{ up_to: null, flat_amount: 5 }] } },
    ],
    has_more: false,
  },
};
const invoice = { object: 'invoice', total: 4999, lines: { object: 'list', data: [] }, discount: null };
const customer = { object: 'customer', name: 'Zoë Žižek 株式会社', email: 'zoë@例え.jp' };

/** Event types with their objects, and with what changed where Stripe says so. */
const EVENTS = [
  ['account.updated', { object: 'account', charges_enabled: true }, { charges_enabled: false }],
  ['balance.available', { object: 'balance', available: [{ amount: Number.MAX_SAFE_INTEGER, currency: 'idr' }] }],
  ['charge.captured', { ...charge, captured: true }],
  ['charge.dispute.closed', { object: 'dispute', status: 'lost' }],
  ['charge.dispute.created', { object: 'dispute', evidence: { uncategorized_text: 'a "quote", a \\ and a\nline' } }],
  ['charge.failed', { ...charge, paid: false, failure_message: 'Votre carte a été refusée.' }],
  ['charge.refunded', { ...charge, refunds: { object: 'list', data: [{ object: 'refund', amount: 2000 }] } }],
  ['charge.succeeded', { ...charge, description: 'café ☕, naïve 🏳️‍🌈, עברית, 日本語' }],
  ['charge.updated', { ...charge, metadata: {} }, { metadata: { empty: '' } }],
  ['checkout.session.completed', { object: 'checkout.session', mode: 'payment' }],
  ['checkout.session.expired', { object: 'checkout.session', url: null }],
  ['customer.created', customer],
  ['customer.deleted', { ...customer, deleted: true }],
  ['customer.subscription.created', subscription],
  ['customer.subscription.deleted', { ...subscription, status: 'canceled' }],
  ['customer.subscription.trial_will_end', { ...subscription, status: 'trialing' }],
  ['customer.subscription.updated', subscription, { items: { data: [] }, status: 'past_due' }],
  ['customer.tax_id.created', { object: 'tax_id', value: 'DE123456789' }],
  ['customer.updated', customer, { name: null }],
  ['invoice.created', invoice],
  ['invoice.finalized', { ...invoice, number: '0001-0042' }],
  ['invoice.paid', { ...invoice, amount_paid: 4999, tax_rate: 0.1 + 0.2 }],
  ['invoice.payment_failed', { ...invoice, attempt_count: 3 }],
  ['invoice.upcoming', { ...invoice, next_payment_attempt: now + 86_400 }],
  ['invoice.voided', { ...invoice, total: -4999 }],
  ['payment_intent.amount_capturable_updated', intent],
  ['payment_intent.canceled', { ...intent, cancellation_reason: 'abandoned' }],
  ['payment_intent.created', intent],
  ['payment_intent.payment_failed', { ...intent, last_payment_error: { code: 'card_declined' } }],
  ['payment_intent.processing', intent],
  ['payment_intent.requires_action', { ...intent, next_action: { type: 'use_stripe_sdk' } }],
  ['payment_intent.succeeded', { ...intent, charges: { data: [{ ...charge, outcome: { risk_score: 32 } }] } }],
  ['payment_method.attached', { object: 'payment_method', card: { brand: 'visa', last4: '4242' } }],
  ['payout.failed', { object: 'payout', amount: -1 }],
  ['payout.paid', { object: 'payout', amount: 1e15 }],
  ['price.created', { object: 'price', unit_amount_decimal: '0.000000000001' }],
  ['product.updated', { object: 'product', name: 'x'.repeat(5000) }, { name: '' }],
  ['radar.early_fraud_warning.created', { object: 'radar.early_fraud_warning', actionable: false }],
  ['setup_intent.succeeded', { object: 'setup_intent', usage: 'off_session' }],
  ['transfer.created', { object: 'transfer', amount: 100 }],
];

/** JSON that `JSON.stringify` does not write, and that must be kept as it is all the same. */
const ODD = [
  ['a number beyond 64 bits', '12345678901234567890123456789.000000000000000001'],
  ['a number beyond a double', '1e999'],
  ['a NUL', String.raw`"a\u0000b"`],
  ['a lone surrogate', String.raw`"\ud83d"`],
  ['a name twice', '{"a":1,"a":2}'],
  ['escapes', String.raw`"\u0063af\u00e9 \/"`],
  ['depth', '['.repeat(500) + ']'.repeat(500)],
];

function event(type, object, previous) {
  return {
    id: id('evt'),
    object: 'event',
    api_version: '2025-06-30.basil',
    created: now,
    data: { object: { id: id(object.object), ...object }, ...(previous && { previous_attributes: previous }) },
    livemode: false,
    pending_webhooks: 1,
    request: { id: id('req'), idempotency_key: null },
    type,
  };
}

/** An event as text, indented as Stripe sends it. */
function plain([type, object, previous]) {
  const value = event(type, object, previous);
  return { what: type, deliveryId: value.id, eventType: type, text: JSON.stringify(value, null, 2) };
}

function odd([what, json]) {
  const { text, ...rest } = plain(['charge.succeeded', { ...charge, odd: '@' }]);
  return { ...rest, what, text: text.replace('"@"', () => json) };
}

function signed(text, secret, timestamp) {
  const signature = Stripe.webhooks.generateTestHeaderString({ payload: text, secret, timestamp });
  return { ...UNSIGNED, 'stripe-signature': signature };
}

const UNSIGNED = {
  'content-type': 'application/json; charset=utf-8',
  'user-agent': 'Stripe/1.0 (+https://stripe.com/docs/webhooks)',
};

await run(async () => {
  const [url, secret] = [env('WEBHOOK_URL'), env('SECRET')];
  const events = [...EVENTS.map(plain), ...ODD.map(odd)];

  // These come first and bear the id of an event that follows: a refused request must not take the
  // id from the genuine one, which would then be answered as a duplicate.
  const { text } = events[0];
  const refusals = [
    ['an old timestamp', signed(text, secret, now - 400), 'timestamp_out_of_tolerance'],
    ['a wrong secret', signed(text, `${secret}x`), 'signature_invalid'],
    ['no signature', UNSIGNED, 'signature_missing'],
  ];
  for (const [what, headers, code] of refusals) {
    refused(await post(url, headers, Buffer.from(text)), what, { status: 401, code });
  }

  const deliveries = events.map((sent) => ({
    ...sent,
    headers: signed(sent.text, secret),
    body: Buffer.from(sent.text),
  }));
  const records = await sendAll(url, deliveries);
  await writeRecords(records);
  return { sent: records.length };
});
