// A customer's first days: an organization is created. Its admin joins, connects a provider, sees webhooks arrive,
// fail and succeed, works with a team, and is signed out when the organization is deactivated.
import { destination, graphql, sendGithub } from './api.mjs';
import { base, end, linkFor, look, person, problems, signIn, until } from './browser.mjs';

const slug = `acme-${process.pid}`;
const dashboard = `/dashboard/${slug}`;
const secret = 'a secret that only GitHub and we know';
const hostile = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>';
const sink = await destination();

// The super admin creates the organization, and invites its first admin.
const platform = await person();
const admin = await signIn(platform, 'admin@localhost');
await admin.getByRole('button', { name: 'New organization' }).first().click();
const making = admin.getByRole('dialog');
await making.getByLabel('Name').fill(`Acme & Söhne ${hostile}`);
await making.getByLabel('Slug').fill(slug);
await making.getByRole('button', { name: 'Create organization' }).click();
await admin.waitForURL(`**/admin/organizations/${slug}`);
await admin.goto(`${base}${dashboard}/team`);
await invite(admin, `ada@${slug}.example`, 'Admin');

async function invite(page, email, role) {
  await page.getByRole('button', { name: 'Invite', exact: false }).first().click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('Email address').fill(email);
  await dialog.getByRole('radio', { name: role }).check();
  await dialog.getByRole('button', { name: /Invite|Send/ }).click();
  await page.getByRole('row').filter({ hasText: email }).first().waitFor();
}

/** Joins by the link of the invitation. */
async function join(email, options) {
  const context = await person(options);
  const page = await context.newPage();
  await page.goto(await linkFor(email));
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.waitForURL(`**${dashboard}/webhooks`);
  return page;
}

const ada = await join(`ada@${slug}.example`);

// She connects GitHub in the wizard, and sees the first webhook arrive and be verified.
await ada.goto(`${base}${dashboard}/providers`);
await ada.getByRole('link', { name: /Connect/ }).first().click();
await ada.getByRole('link', { name: /GitHub/ }).click();
await ada.getByLabel('Secret', { exact: false }).first().fill(secret);
await ada.getByRole('button', { name: 'Connect GitHub' }).click();
const address = (await ada.getByTestId('address').textContent()).trim();
if (new URL(address).pathname !== `/webhooks/${slug}/github`) problems.push(`the wizard says ${address}`);
await look(ada, 'wizard-address');
await ada.getByRole('button', { name: 'Continue' }).click();
await ada.getByLabel('Destination URL').fill(sink.url);
await ada.getByRole('button', { name: 'Add destination' }).click();
await ada.getByRole('button', { name: "I've saved it, continue" }).click();
await ada.getByText('Waiting for a webhook from GitHub').waitFor();
await sendGithub(slug, secret, 'ping', { zen: 'Responsive is better than fast.' });
await ada.getByText('Verified', { exact: true }).first().waitFor();
await look(ada, 'wizard-verified');

// The list shows new webhooks without a reload.
await ada.goto(`${base}${dashboard}/webhooks`);
await row(ada, 'ping').waitFor();
await sendGithub(slug, secret, 'issues', { action: 'opened', issue: { title: hostile } });
await row(ada, 'issues').waitFor();

function row(page, text) {
  return page.getByRole('row').filter({ hasText: text }).first();
}

// A failing destination causes a dead letter. A person retries it, and it is delivered.
sink.status = 500;
await sendGithub(slug, secret, 'push', { ref: 'refs/heads/main' });
await until('a dead letter', async () => {
  const { organization } = await graphql(ada, 'query($slug: String!) { organization(slug: $slug) { deadLetters(first: 1) { nodes { id } } } }', { slug });
  return organization.deadLetters.nodes.length > 0;
});
await ada.goto(`${base}${dashboard}/dead-letters`);
await ada.getByText('500', { exact: false }).first().waitFor();
await look(ada, 'dead-letters-journey');
sink.status = 200;
await ada.getByRole('button', { name: /^Retry/ }).first().click();
await ada.getByRole('dialog').getByRole('button', { name: /^Retry/ }).click();
await until('the retry to arrive', () => sink.requests.some(({ headers }) => headers['hookledger-attempt'] === '5'));
await ada.goto(`${base}${dashboard}/webhooks`);
await row(ada, 'push').filter({ hasText: 'Success' }).waitFor();

// Text from strangers is shown as text, never as markup.
const strange = [
  ['issues', { html: hostile, nested: { '<b>key</b>': [hostile, '\u202Eevil\u202C', 'שלום עולם', '👩‍🚀🏳️‍🌈', '\u0000\u0007'] } }],
  ['\u0022><script>window.pwned=1</script>', { ok: true }],
  ['big', { rows: Array.from({ length: 50_000 }, (_, id) => ({ id, text: 'x'.repeat(80) })) }],
  ['raw', '{"broken": <script>window.pwned=1</script>'],
];
for (const [event, body] of strange) {
  const { status, body: answer } = await sendGithub(slug, secret, event.replace(/[^\x20-\x7e]/g, ''), body);
  if (status !== 200) problems.push(`${event} was answered ${status}`);
  await ada.goto(`${base}${dashboard}/webhooks/${answer.webhook_id}`);
  await ada.getByRole('heading', { level: 1 }).waitFor();
  await ada.getByText(answer.webhook_id).first().waitFor();
  await look(ada, `webhook-${strange.findIndex(([each]) => each === event)}`);
  if (await ada.evaluate(() => window.pwned)) problems.push(`${event}: something of a stranger's ran`);
  const elements = await ada.evaluate(() => document.querySelectorAll('*').length);
  if (elements > 3_000) problems.push(`${event}: the page has ${elements} elements`);
}

// A team: a member who can view and retry, and an admin who loses the role.
await ada.goto(`${base}${dashboard}/team`);
await invite(ada, `max@${slug}.example`, 'Member');
await invite(ada, `bea@${slug}.example`, 'Admin');
const max = await join(`max@${slug}.example`, { scheme: 'dark' });
await row(max, 'push').waitFor();
const bea = await join(`bea@${slug}.example`);
await ada.reload();
const her = row(ada, `bea@${slug}.example`);

await her.getByRole('button', { name: 'Make member' }).click();
await ada.getByRole('dialog').getByRole('button', { name: 'Make member' }).click();
await her.getByRole('button', { name: 'Make admin' }).waitFor();
await bea.goto(`${base}${dashboard}/team`);
await bea.getByRole('heading', { name: /not found/ }).waitFor();
await ada.goto(`${base}${dashboard}/audit`);
await ada.getByText(/role/i).first().waitFor();
await look(ada, 'audit-journey');

// The organization is deactivated: all its users are signed out immediately.
await admin.goto(`${base}/admin/organizations/${slug}`);
await admin.getByRole('button', { name: 'Deactivate' }).click();
const question = admin.getByRole('dialog');
await question.getByLabel(/to confirm/).fill(slug);
await question.getByRole('button', { name: 'Deactivate' }).click();
await admin.getByText('Deactivated').first().waitFor();
max.expectsErrors = true;
await max.waitForURL('**/login**');
const refused = await sendGithub(slug, secret, 'ping', {});
if (refused.status !== 403) problems.push(`a deactivated organization answered ${refused.status}`);

await end();
