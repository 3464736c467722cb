// Compresses what was built, once, so that the server never has to; says how much a page loads, and fails
// where that has grown beyond its bound.
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
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

// What a page loads: the entry, the page, and all that these import, at once or later (a drawer, a dialog).
const manifest = JSON.parse(readFileSync(join(dist, '.vite/manifest.json'), 'utf8'));
const files = (key, seen, later) => {
  const chunk = manifest[key];
  if (!chunk || seen.has(chunk.file)) return seen;
  seen.add(chunk.file);
  for (const next of [...(chunk.imports ?? []), ...(later ? (chunk.dynamicImports ?? []) : [])])
    files(next, seen, later);
  return seen;
};
const size = (names) => [...names].reduce((sum, name) => sum + (sizes.get(name) ?? 0), 0);
const entry = 'index.html';
const pages = (manifest[entry]?.dynamicImports ?? []).map((page) => [
  page,
  files(page, files(entry, new Set(), false), true),
]);
if (pages.length === 0) throw new Error('the application has no pages');
const [heaviest, bytes] = pages.map(([page, names]) => [page, size(names)]).sort(([, a], [, b]) => b - a)[0];
const all = size(new Set(pages.flatMap(([, names]) => [...names])));
const told = (value) => `${Math.round(value / 1000)} kB`;
console.log(
  `JavaScript as browsers get it: at most ${told(bytes)} for a page (${heaviest}), ${told(all)} for all ${pages.length} of the application`,
);
if (bytes > BOUND) throw new Error(`a page loads more than ${told(BOUND)}`);
rmSync(join(dist, '.vite'), { recursive: true });
