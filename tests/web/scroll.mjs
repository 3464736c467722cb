// A long list scrolls smoothly, however far: frames are counted while it does. ROWS says how long (5,000 unless told).
import { sendGithub } from './api.mjs';
import { base, end, problems, settled, person, signIn } from './browser.mjs';

const rows = Number(process.env.ROWS ?? 5000);
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

// Each frame moves on by a good deal of a screen; what counts is how long frames take while pages are loaded and rows come and go.
const { frames, seconds, slow, reached } = await list.evaluate(async (element) => {
  const times = [];
  let before = performance.now();
  const start = before;
  while (performance.now() - start < 10_000) {
    await new Promise((resolve) => requestAnimationFrame(resolve));
    const now = performance.now();
    times.push(now - before);
    before = now;
    element.scrollTop += 90;
  }
  return {
    frames: times.length,
    seconds: (before - start) / 1000,
    slow: times.filter((time) => time > 100).length,
    reached: element.scrollTop,
  };
});
const rate = frames / seconds;
// The machine that tests run on is shared and has no graphics: the bound for it is lower than what a person sees.
if (rate < Number(process.env.MIN_FRAMES ?? 20)) problems.push(`${rate.toFixed(1)} frames a second`);
if (reached < 20_000) problems.push(`it scrolled ${reached} pixels only`);
const nodes = await page.evaluate(() => document.querySelectorAll('[role=row]').length);
if (nodes > 200) problems.push(`${nodes} rows are in the page at once`);
await end({ rows, framesPerSecond: Math.round(rate), slowFrames: slow, reached, rowsInPage: nodes });
