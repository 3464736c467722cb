// A long list scrolls at a constant cost, however far. ROWS is its length (2,000 by default).
import { sendGithub } from './api.mjs';
import { base, end, problems, settled, person, signIn } from './browser.mjs';

const rows = Number(process.env.ROWS ?? 2000);
const secret = "It's a Secret to Everybody";

let left = rows;
await Promise.all(
  Array.from({ length: 32 }, async () => {
    while (left-- > 0) {
      const { status } = await sendGithub('acme', secret, ['push', 'issues', 'ping'][left % 3], { left });
      if (status !== 200) throw new Error(`a webhook was answered ${status}`);
    }
  }),
);

const page = await signIn(await person(), 'admin@localhost');
await page.goto(`${base}/dashboard/acme/webhooks`);
await settled(page);
const list = page.locator('[role=region]:has([role=table])');
await list.waitFor();

// Each frame scrolls by a large part of a screen. The test counts work, not time, which depends on the machine.
const DISTANCE = 40_000;
const BUDGET = { rowsInPage: 80, layoutsPerFrame: 2, questions: 25 };
let questions = 0;
page.on('request', (request) => (questions += new URL(request.url()).pathname === '/graphql' ? 1 : 0));
const metrics = await page.context().newCDPSession(page);
await metrics.send('Performance.enable');
const layouts = async () => (await metrics.send('Performance.getMetrics')).metrics.find(({ name }) => name === 'LayoutCount').value;
const before = await layouts();
const { frames, seconds, rowsInPage } = await list.evaluate(async (element, distance) => {
  const start = performance.now();
  let [frames, rowsInPage] = [0, 0];
  while (element.scrollTop < distance) {
    await new Promise((resolve) => requestAnimationFrame(resolve));
    element.scrollTop += 90;
    frames += 1;
    rowsInPage = Math.max(rowsInPage, document.querySelectorAll('[role=row]').length);
  }
  return { frames, seconds: (performance.now() - start) / 1000, rowsInPage };
}, DISTANCE);
const layoutsPerFrame = ((await layouts()) - before) / frames;
const cost = { rowsInPage, layoutsPerFrame, questions };
for (const [what, most] of Object.entries(BUDGET)) {
  if (cost[what] > most) problems.push(`scrolling costs ${cost[what]} ${what}; ${most} are its budget`);
}
await settled(page);
if ((await list.getByRole('row').count()) < 10) problems.push('there are no rows where it scrolled to');
await end({ rows, frames, framesPerSecond: Math.round(frames / seconds), ...cost });
