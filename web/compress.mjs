// Compresses what was built, once, so that the server never has to; says how large the dashboard is
// and fails where it has grown beyond its bound.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const BOUND = 300_000;
const dist = new URL('./dist/', import.meta.url).pathname;
const quick = process.env.HOOKLEDGER_WEB_QUICK === '1';
const sizes = new Map();

for (const entry of readdirSync(dist, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() || !/\.(js|css|svg|json|ttf)$/.test(entry.name)) continue;
  const file = join(entry.parentPath, entry.name);
  const bytes = readFileSync(file);
  const quality = quick || bytes.length > 1_000_000 ? 6 : 11;
  const brotli = brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: quality } });
  const gzip = gzipSync(bytes, { level: 9 });
  sizes.set(file.slice(dist.length), brotli.length);
  if (brotli.length < bytes.length) writeFileSync(`${file}.br`, brotli);
  if (gzip.length < bytes.length) writeFileSync(`${file}.gz`, gzip);
}

// All scripts that the application can ever load, whatever page one looks at: its entry, and all that it imports, at once or later.
const seen = new Set();
const visit = (name) => {
  if (seen.has(name)) return;
  seen.add(name);
  const text = readFileSync(join(dist, name), 'utf8');
  for (const [, next] of text.matchAll(/["'`](?:\.\/|\/?assets\/)([\w.-]+\.js)["'`]/g)) visit(`assets/${next}`);
};
const [, entry] = readFileSync(join(dist, 'index.html'), 'utf8').match(/src="\/(assets\/[\w.-]+\.js)"/) ?? [];
if (!entry) throw new Error('index.html names no script');
visit(entry);
const total = [...seen].reduce((sum, name) => sum + (sizes.get(name) ?? 0), 0);
console.log(`The application's JavaScript: ${Math.round(total / 1000)} kB compressed (brotli, as browsers get it), in ${seen.size} files`);
if (total > BOUND) throw new Error(`that is more than ${BOUND / 1000} kB`);
