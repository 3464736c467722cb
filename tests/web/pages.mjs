// Every page, in each role, in both themes and on a small screen: it has content, and breaks no rule.
import { graphql } from './api.mjs';
import { base, change, end, hold, linkFor, look, person, problems, settled, signIn, until } from './browser.mjs';

const slug = 'acme';
const dashboard = `/dashboard/${slug}`;

const superAdmin = await person();
const start = await signIn(superAdmin, 'admin@localhost');
const { organization } = await graphql(start, 'query($slug: String!) { organization(slug: $slug) { id webhooks(first: 1) { nodes { webhookId } } } }', { slug });
const people = { admin: `ada-${process.pid}@example.com`, member: `max-${process.pid}@example.com` };
for (const [role, email] of Object.entries(people)) {
  const input = { organizationId: organization.id, email, role: role.toUpperCase() };
  await graphql(start, 'mutation($input: InviteUserInput!) { inviteUser(input: $input) { user { id } } }', { input });
}

/** Signs in by the invitation. */
async function joined(email) {
  const context = await person();
  const page = await context.newPage();
  await page.goto(await linkFor(email));
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.waitForURL((url) => url.pathname.startsWith(dashboard));
  const token = await page.evaluate(() => localStorage.getItem('hookledger.session'));
  await context.close();
  return token;
}

const tokens = {
  'super-admin': await start.evaluate(() => localStorage.getItem('hookledger.session')),
  admin: await joined(people.admin),
  member: await joined(people.member),
};
await superAdmin.close();

const [webhook] = organization.webhooks.nodes;
const everybody = {
  webhooks: `${dashboard}/webhooks`,
  webhook: `${dashboard}/webhooks/${webhook.webhookId}`,
  'dead-letters': `${dashboard}/dead-letters`,
  analytics: `${dashboard}/analytics?span=1h`,
  providers: `${dashboard}/providers`,
  provider: `${dashboard}/providers/github`,
  tester: `${dashboard}/tester`,
  account: '/account',
};
const admins = {
  'provider-new': `${dashboard}/providers/new`,
  team: `${dashboard}/team`,
  usage: `${dashboard}/usage`,
  audit: `${dashboard}/audit`,
  graphiql: '/graphiql',
};
const platform = {
  'admin-organizations': '/admin/organizations',
  'admin-organization': `/admin/organizations/${slug}`,
  'admin-users': '/admin/users',
  'admin-providers': '/admin/providers',
  'admin-analytics': '/admin/analytics?span=1h',
  'admin-audit': '/admin/audit',
  'admin-health': '/admin/health',
  'admin-settings': '/admin/settings',
};
const open = { login: '/login', demo: '/demo' };

/** Opens each page once, and looks at it in these ways. */
async function walk(name, token, pages, ways) {
  const context = await person(ways[0]);
  if (token) await hold(context, token);
  for (const [page_, path] of Object.entries(pages)) {
    const page = await context.newPage();
    await page.goto(base + path);
    const heading = page_ === 'graphiql' ? page.locator('.graphiql-container') : page.getByRole('heading', { level: 1 });
    await heading.first().waitFor();
    for (const way of ways) {
      if (way !== ways[0]) await change(page, way);
      // GraphiQL's own components are not checked.
      await look(page, `${page_}-${name}-${way.at}`, { axe: page_ === 'graphiql' ? 'none' : way.axe });
    }
    await page.close();
  }
  await context.close();
}

// A theme changes only colours, but the width can change everything.
const light = { at: 'light', scheme: 'light' };
const dark = { at: 'dark', scheme: 'dark' };
const small = { at: 'small', width: 390, height: 844 };
const colours = { axe: 'colours' };
await Promise.all([
  walk('admin', tokens.admin, everybody, [light, { ...dark, ...colours }]),
  (async () => {
    await walk('super-admin', tokens['super-admin'], platform, [dark, { ...light, ...colours }, { ...small, scheme: 'dark' }]);
    await walk('admin', tokens.admin, admins, [light, { ...dark, ...colours }, { ...small, scheme: 'dark' }]);
  })(),
  (async () => {
    await walk('anybody', null, open, [light, { ...dark, ...colours }, small]);
    await walk('member', tokens.member, everybody, [small]);
  })(),
]);

// A member sees neither pages of admins, nor links to them.
const member = await person();
await hold(member, tokens.member);
const page = await member.newPage();
for (const path of [...Object.values(admins).filter((path) => path !== '/graphiql'), ...Object.values(platform), '/dashboard/somebody-else/webhooks']) {
  await page.goto(base + path);
  await page.getByRole('heading', { name: /not found/ }).waitFor();
}
await page.goto(`${base}${dashboard}/webhooks`);
await settled(page);
for (const link of ['Team', 'Audit trail', 'Organizations']) {
  if (await page.getByRole('link', { name: link, exact: true }).count()) problems.push(`a member is offered ${link}`);
}

// A click on a column's head sorts a list, a second one reverses it, and "back" undoes that.
const sorter = await person();
await hold(sorter, tokens['super-admin']);
const users = await sorter.newPage();
await users.goto(`${base}/admin/users`);
const head = users.getByRole('columnheader', { name: 'Email address' });
for (const [sort, way] of [['email', 'ascending'], ['-email', 'descending']]) {
  await head.getByRole('button').click();
  await users.waitForURL(`**/admin/users?sort=${sort}`);
  await settled(users);
  if ((await head.getAttribute('aria-sort')) !== way) problems.push(`sorted by ${sort}, the column does not say ${way}`);
  const shown = (await users.locator('tbody tr td:nth-child(2)').allInnerTexts()).map((email) => email.toLowerCase());
  const sorted = way === 'ascending' ? shown.toSorted() : shown.toSorted().reverse();
  if (shown.length < 3 || shown.join() !== sorted.join()) problems.push(`sorted by ${sort}: ${shown}`);
}
await users.goBack();
await users.waitForURL('**/admin/users?sort=email');

// Loading the list in a new browser: limits of size and requests, on any machine. The time is printed, and not checked.
const BUDGET = { requests: 85, questions: 5, bytes: 450_000, elements: 2_000 };
const nobody = await person();
await hold(nobody, tokens.admin);
const fresh = await nobody.newPage();
const network = await nobody.newCDPSession(fresh);
await network.send('Network.enable');
const cost = { requests: 0, questions: 0, bytes: 0, elements: 0 };
network.on('Network.requestWillBeSent', ({ request }) => {
  cost.requests += 1;
  if (new URL(request.url).pathname === '/graphql') cost.questions += 1;
});
network.on('Network.loadingFinished', ({ encodedDataLength }) => (cost.bytes += encodedDataLength));
// The page itself checks at each frame whether it shows rows, because polling from outside happens only twice a second.
await fresh.addInitScript(() => {
  const look = () => (document.querySelectorAll('[role=row]').length > 3 ? (window.shownAt = performance.now()) : requestAnimationFrame(look));
  requestAnimationFrame(look);
});
await fresh.goto(`${base}${dashboard}/webhooks`, { waitUntil: 'commit' });
const shownAt = await until('rows', () => fresh.evaluate(() => window.shownAt));
await settled(fresh);
cost.elements = await fresh.evaluate(() => document.querySelectorAll('*').length);
for (const [what, most] of Object.entries(BUDGET)) {
  if (cost[what] > most) problems.push(`the list costs ${cost[what]} ${what}; ${most} are its budget`);
}
await end({ shownAfterMs: Math.round(shownAt), ...cost });
