// Occasional tasks, done in the pages: rotate a secret, export a list, lose the connection and get it back, erase a body
// and a person, delete a provider.
import { readFileSync } from 'node:fs';

import { graphql, sendGithub } from './api.mjs';
import { base, end, linkFor, look, person, problems, signIn, until } from './browser.mjs';

const slug = `upkeep-${process.pid}`;
const dashboard = `${base}/dashboard/${slug}`;
const [first, second] = ['the first secret of ours', 'the second secret of ours'];

const admin = await signIn(await person(), 'admin@localhost');
const make = 'mutation($slug: String!) { createOrganization(input: {name: "Upkeep", slug: $slug, plan: PREMIUM}) { organization { id } } }';
const { id } = (await graphql(admin, make, { slug })).createOrganization.organization;
const connect = 'mutation($id: ID!, $secret: String!) { connectProvider(input: {organizationId: $id, providerName: GITHUB, secret: $secret}) { provider { id } } }';
await graphql(admin, connect, { id, secret: first });

const row = (page, text) => page.getByRole('row').filter({ hasText: text }).first();
const send = async (secret, event, expected = 200) => {
  const { status, body } = await sendGithub(slug, secret, event, { of: event });
  if (status !== expected) problems.push(`${event} was answered ${status}, not ${expected}`);
  return body.webhook_id;
};

// Rotation: both secrets verify, and the page says when the old one is no longer used.
await send(first, 'before');
await admin.goto(`${dashboard}/providers/github`);
const secrets = admin.getByRole('table').filter({ hasText: 'Last used' }).first();
await admin.getByRole('button', { name: 'Rotate secret' }).first().click();
const rotating = admin.getByRole('dialog');
await rotating.getByLabel('Secret', { exact: false }).first().fill(second);
await rotating.getByRole('button', { name: 'Rotate secret' }).click();
await rotating.waitFor({ state: 'hidden' });
await secrets.getByText('Active').waitFor();
await secrets.getByText('Expires', { exact: false }).first().waitFor();
await send(first, 'by-the-old-one');
await send(second, 'by-the-new-one');
await look(admin, 'secret-rotated');
if ((await admin.content()).includes(second)) problems.push('the page has the secret');

// The connection is lost. After it is back, the list has the webhooks that arrived meanwhile.
let cut = false;
const sockets = new Set();
const watching = await (await person()).newPage();
await watching.routeWebSocket(/\/graphql$/, (socket) => {
  if (cut) return void socket.close({ code: 1012 });
  sockets.add(socket);
  socket.connectToServer();
});
const token = await admin.evaluate(() => localStorage.getItem('hookledger.session'));
await watching.addInitScript((value) => localStorage.setItem('hookledger.session', value), token);
watching.expectsErrors = true;
await watching.goto(`${dashboard}/webhooks`);
await row(watching, 'by-the-new-one').waitFor();
await until('a socket', () => sockets.size > 0);
cut = true;
for (const socket of sockets) await socket.close({ code: 1012 });
await watching.getByRole('button', { name: 'Reconnecting' }).waitFor();
await send(second, 'meanwhile');
cut = false;
await row(watching, 'meanwhile').waitFor();
await watching.getByRole('button', { name: 'Live' }).waitFor();
await send(second, 'live-again');
await row(watching, 'live-again').waitFor();

// Both exported files agree with the page.
const saved = async (page, press) => {
  const [file] = await Promise.all([page.waitForEvent('download'), press()]);
  return readFileSync(await file.path(), 'utf8');
};
await admin.goto(`${dashboard}/webhooks`);
await row(admin, 'live-again').waitFor();
await admin.getByRole('button', { name: 'Export' }).click();
const exporting = admin.getByRole('dialog');
const press = () => exporting.getByRole('button', { name: 'Export webhooks' }).click();
const csv = await saved(admin, press);
await exporting.getByText('JSON', { exact: true }).click();
const listed = JSON.parse(await saved(admin, press));
if (listed.length !== 5 || csv.trim().split('\n').length !== 6) problems.push(`the files have ${listed.length} webhooks and ${csv.trim().split('\n').length} lines`);
await admin.goto(`${dashboard}/audit`);
const trail = await saved(admin, () => admin.getByRole('button', { name: 'Export JSON' }).click());
if (!trail.includes('secret_rotated') || trail.includes(second)) problems.push('the audit trail as JSON does not tell of the rotation as it should');

// A body and a person are erased.
const erased = await send(second, 'to-be-erased');
await admin.goto(`${dashboard}/webhooks/${erased}`);
await admin.getByRole('button', { name: 'Erase body' }).click();
const erasing = admin.getByRole('dialog');
await erasing.getByLabel(/to confirm/).fill(erased.slice(-6));
await erasing.getByLabel('Reason').fill('they <b>asked</b> for it');
await erasing.getByRole('button', { name: 'Erase body' }).click();
await admin.getByText('These are not erased', { exact: false }).waitFor();
await look(admin, 'body-erased');
await admin.getByRole('button', { name: 'Done' }).click();
await admin.getByText('These are not erased', { exact: false }).waitFor({ state: 'hidden' });
await admin.getByText('The body was erased').waitFor();
await admin.getByText('they <b>asked</b> for it', { exact: false }).waitFor();

const email = `max@${slug}.example`;
await admin.goto(`${dashboard}/team`);
await admin.getByRole('button', { name: 'Invite', exact: false }).first().click();
const inviting = admin.getByRole('dialog');
await inviting.getByLabel('Email address').fill(email);
await inviting.getByRole('button', { name: /Invite|Send/ }).click();
const his = row(admin, email);
await his.waitFor();
const max = await (await person()).newPage();
await max.goto(await linkFor(email));
await max.getByRole('button', { name: 'Sign in' }).click();
await max.waitForURL('**/webhooks');
// After he is signed out, his page sends one more request, which is refused.
max.expectsErrors = true;
const choose = async (item) => {
  await his.getByRole('button', { name: `Actions for ${email}` }).click();
  await admin.getByRole('menuitem', { name: item }).click();
};
await admin.reload();
await choose('Deactivate');
await admin.getByRole('dialog').getByRole('button', { name: 'Deactivate user' }).click();
await his.getByText('Deactivated').waitFor();
await choose('Erase personal data');
const forgetting = admin.getByRole('dialog');
await forgetting.getByLabel(/to confirm/).fill(email);
await forgetting.getByRole('button', { name: 'Erase personal data' }).click();
await admin.getByText('These are not erased', { exact: false }).waitFor();
await admin.getByRole('button', { name: 'Done' }).click();
await row(admin, 'Erased').waitFor();
if ((await admin.getByRole('main').textContent()).includes(email)) problems.push('the team still shows who was erased');
await look(admin, 'person-erased');

// A provider is deleted by typing its name, and its webhooks stay.
await admin.goto(`${dashboard}/providers/github`);
await admin.getByRole('button', { name: 'Delete' }).click();
const deleting = admin.getByRole('dialog');
const sure = deleting.getByRole('button', { name: 'Delete' });
if (await sure.isEnabled()) problems.push('a provider can be deleted without typing its name');
await deleting.getByLabel(/to confirm/).fill('github');
await sure.click();
await admin.waitForURL(`${dashboard}/providers`);
await send(second, 'too-late', 404);
await admin.goto(`${dashboard}/webhooks`);
await row(admin, 'meanwhile').waitFor();

await end();
