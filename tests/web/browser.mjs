// A real browser, and the rules for every page: no error in the console, no violation of the Content-Security-Policy,
// no request to another host, no serious finding of axe-core.
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { AxeBuilder } from '@axe-core/playwright';
import { chromium } from 'playwright-core';

export const base = process.env.BASE_URL;
const mails = process.env.MAIL_DIR;
const shots = process.env.SHOTS;
if (shots) mkdirSync(shots, { recursive: true });

const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
if (!executablePath) throw new Error('chromium is missing: run `make setup`');

/** How long anything may take; it says nothing about how fast a machine is. */
const PATIENCE = 300_000;

/** Everything that was wrong on any page. */
export const problems = [];

export const browser = await chromium.launch({ executablePath, timeout: PATIENCE, args: ['--no-sandbox', '--disable-dev-shm-usage'] });

/** A person's browser: a context of its own, watched. */
export async function person({ scheme = 'light', width = 1440, height = 900 } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme });
  context.setDefaultTimeout(PATIENCE);
  await context.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => {
      console.error(`the policy stopped ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
    });
  });
  context.on('page', watch);
  return context;
}

function watch(page) {
  const tell = (what) => problems.push(`${new URL(page.url(), base).pathname}: ${what}`);
  page.on('console', (message) => {
    if (message.type() === 'error' && !page.expectsErrors) tell(message.text());
  });
  page.on('pageerror', (error) => tell(error.message));
  page.on('dialog', (dialog) => {
    tell(`a dialog said ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (url.origin !== new URL(base).origin && !['data:', 'blob:'].includes(url.protocol)) tell(`a request went to ${url}`);
  });
}

/** Signs in as a person does: the address, the mail, the link, the click. */
export async function signIn(context, email) {
  const page = await context.newPage();
  await page.goto(`${base}/login`);
  const since = Date.now();
  await page.getByLabel('Email address').fill(email);
  await page.getByRole('button', { name: 'Send sign-in link' }).click();
  await page.getByRole('heading', { name: 'Check your email' }).waitFor();
  await page.goto(await linkFor(email, since - 1000));
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.waitForURL((url) => !url.pathname.startsWith('/auth'));
  await page.getByRole('heading', { level: 1 }).waitFor();
  return page;
}

/** Gives a browser a session that was made elsewhere. */
export async function hold(context, token) {
  await context.addInitScript(([origin, value]) => {
    if (location.origin === origin) localStorage.setItem('hookledger.session', value);
  }, [new URL(base).origin, token]);
}

/** The link of the latest mail to this address, once it is there. */
export async function linkFor(email, since = 0) {
  const found = await until(`a mail to ${email}`, () => {
    const texts = readdirSync(mails)
      .filter((name) => name.endsWith('.eml'))
      .sort()
      .reverse()
      .map((name) => readFileSync(join(mails, name), 'utf8').replaceAll('=\r\n', '').replaceAll('=3D', '='));
    return texts
      .filter((text) => text.includes(`To: ${email}`) && Date.parse(/^Date: (.*)$/m.exec(text)?.[1] ?? '') >= Math.floor(since / 1000) * 1000)
      .map((text) => /http\S+\/auth\/verify\?token=\S+/.exec(text)?.[0])
      .find(Boolean);
  });
  return found;
}

/** Waits for a condition; never for a time. */
export async function until(what, condition, limit = PATIENCE) {
  const end = Date.now() + limit;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`in vain waited for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Waits until the page has what it asked for. */
export async function settled(page) {
  await page.waitForFunction(() => !document.querySelector('[role=status][aria-label=Loading], [data-loading]'));
  await page.waitForFunction(() => [...document.querySelectorAll('[data-chart]')].every((chart) => chart.querySelector('canvas')));
  await page.waitForFunction(() => document.getAnimations().every((animation) => animation.playState !== 'running' || animation.effect?.getTiming().iterations === Infinity));
}

/** Lets a page that is open have another theme and size. */
export async function change(page, { scheme = 'light', width = 1440, height = 900 } = {}) {
  await page.emulateMedia({ colorScheme: scheme });
  await page.setViewportSize({ width, height });
  await page.waitForFunction((wished) => (document.documentElement.dataset.mantineColorScheme ?? wished) === wished, scheme);
}

/** A picture of the page, kept with the test's results, and axe-core's judgement of it: all of it, of colours alone, or none. */
export async function look(page, name, { axe = 'all' } = {}) {
  await settled(page);
  if (shots) await page.screenshot({ path: join(shots, `${name}.png`) });
  if (axe === 'none') return;
  // There are no frames, and looking for them would double the time.
  const builder = new AxeBuilder({ page }).setLegacyMode();
  if (axe === 'colours') builder.withRules(['color-contrast']);
  else builder.withTags(['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']);
  const { violations } = await builder.analyze();
  for (const { id, impact, help, nodes } of violations) {
    if (impact !== 'serious' && impact !== 'critical') continue;
    problems.push(`${name}: axe: ${id}: ${help}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html.slice(0, 160)} (${failureSummary?.split('\n')[1]?.trim()})`).join(' | ')}`);
  }
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth + 1);
  if (wide) problems.push(`${name}: the page scrolls sideways`);
}

/** Ends the run: a line of JSON for the test that started it; not zero where anything was wrong. */
export async function end(result = {}) {
  await browser.close();
  for (const problem of problems) console.error(problem);
  console.log(JSON.stringify({ ...result, problems: problems.length }));
  process.exit(problems.length > 0 ? 1 : 0);
}
