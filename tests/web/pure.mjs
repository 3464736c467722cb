// The pure functions of the web application: parsing and comparing payloads, quoting commands, keeping rows. No browser.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';

const web = fileURLToPath(new URL('../../web/', import.meta.url));
const vite = await import(pathToFileURL(createRequire(`${web}package.json`).resolve('vite')));
const loader = await vite.createServer({ root: web, configFile: false, logLevel: 'error', appType: 'custom', server: { middlewareMode: true, hmr: false, ws: false, watch: null }, optimizeDeps: { noDiscovery: true } });
const load = (path) => loader.ssrLoadModule(`/src/${path}`);
const [json, { diff }, { curl, quoted }, { visible, beginning }, { broken }, { dumped }] = await Promise.all(
  ['ui/payload/json.ts', 'ui/payload/diff.ts', 'pages/webhooks/detail/curl.ts', 'ui/payload/visible.ts', 'ui/payload/lines.ts', 'ui/payload/bytes.ts'].map(load),
);
const [rows, filters, exporting, { spanOf }, groups] = await Promise.all(['pages/webhooks/rows.ts', 'pages/webhooks/filter.ts', 'pages/webhooks/export.ts', 'pages/webhooks/span.ts', 'pages/deadletters/groups.ts'].map(load));

/** Browsers tell a number's digits since 2023; an older engine shows what a double holds. */
const tellsDigits = JSON.parse('1', (_, value, context) => context?.source ?? value) === '1';

let failed = 0;
let done = 0;
async function test(name, run) {
  try {
    await run();
    done += 1;
  } catch (error) {
    failed += 1;
    console.error(`${name}: ${error.stack}`);
  }
}

// Sessions

await test('a session that nobody uses is over, whatever its tabs and clocks say', async () => {
  const { isIdle, IDLE_MINUTES } = await load('session/idle.ts');
  const now = Date.UTC(2026, 0, 31);
  const ago = (minutes) => String(now - minutes * 60_000);
  for (const used of [null, ago(0), ago(IDLE_MINUTES - 1)]) assert.equal(isIdle(used, now), false, used);
  for (const used of [ago(IDLE_MINUTES), ago(10_000), ago(-5), '', 'soon', 'Infinity']) assert.equal(isIdle(used, now), true, used);
});

// Payloads

const tree = (text, view = json.untouched) => json.lines(json.parse(text), view).map(({ path, kind, size }) => `${json.written(path)} ${kind} ${size}`);

await test('numbers keep their digits', () => {
  if (!tellsDigits) return;
  const value = json.parse('{"id":12345678901234567890,"small":1,"money":1.10}');
  assert.equal(json.told(value.id), '12345678901234567890');
  assert.equal(value.small, 1);
  assert.equal(json.told(value.money), '1.10');
});
await test('what is not JSON is not a tree', () => assert.equal(json.parse('{"a":'), undefined));
await test('a key of another kind is a key', () => assert.deepEqual(tree('{"__proto__":1,"a b":[2]}'), ['$ branch 2', '$.__proto__ leaf 0', '$["a b"] branch 1', '$["a b"][0] leaf 0']));
await test('long lists are shown in part, and further when asked', () => {
  const text = JSON.stringify(Array.from({ length: 1000 }, (_, index) => index));
  assert.equal(tree(text).length, 1 + json.FIRST + 1);
  assert.equal(tree(text).at(-1), '$ more 800');
  const view = json.revealing(json.untouched, json.parse(text), [777]);
  assert.ok(tree(text, view).includes('$[777] leaf 0'));
});
await test('nesting needs no stack', () => {
  const value = json.parse(`${'[1,'.repeat(5000)}${'1'}${']'.repeat(5000)}`);
  const path = Array.from({ length: 5000 }, () => 1);
  assert.equal(json.lines(value, json.revealing(json.untouched, value, path)).length, 10_001);
  assert.equal([...json.search(value, '1', 10)].at(-1).length, 10);
});
await test('a search finds keys and values in any case', () => {
  const found = [...json.search(json.parse('{"Abc":1,"b":["xABCx",{"c":true}]}'), 'abc', 10)].at(-1);
  assert.deepEqual(found, [['Abc'], ['b', 0]]);
});

const told = (a, b) => diff(json.parse(a), json.parse(b)).map(({ path, kind }) => `${kind} ${json.written(path)}`);
await test('the same is no difference', () => assert.deepEqual(told('{"a":[1,{"b":null}],"c":1.0}', '{"c":1.0,"a":[1,{"b":null}]}'), []));
await test('differences are told by place', () =>
  assert.deepEqual(told('{"a":1,"b":{"c":"x"},"gone":0}', '{"a":2,"b":{"c":"y","d":1}}'), ['changed $.a', 'changed $.b.c', 'added $.b.d', 'removed $.gone']));
await test('what is put into a list moves nothing else', () => assert.deepEqual(told('["a","b","c"]', '["a","x","b","c"]'), ['added $[1]']));
await test('a changed element is changed, not removed and added', () => assert.deepEqual(told('[{"n":1,"s":"a"},2]', '[{"n":1,"s":"b"},2]'), ['changed $[0].s']));
await test('numbers that a double would confuse differ', () => tellsDigits && assert.deepEqual(told('{"id":12345678901234567890}', '{"id":12345678901234567891}'), ['changed $.id']));
await test('null, a list and an object are three things', () => assert.deepEqual(told('{"a":null,"b":[]}', '{"a":{},"b":{}}'), ['changed $.a', 'changed $.b']));

// Text

await test('hidden characters are seen', () => assert.equal(visible('a\u001b[31m\u202Eb\u0000\n\t'), 'a␛[31m‹U+202E›b␀\n\t'));
await test('half a character is none', () => assert.equal(beginning('ab🔥', 3), 'ab'));
await test('lines are broken between characters', () => {
  const text = `${'🔥'.repeat(30)}\nshort\n`;
  const starts = broken(text, 41);
  assert.equal(starts.map((start, at) => text.slice(start, starts[at + 1])).join(''), text);
  assert.ok(starts.every((start) => start === 0 || !/[\ud800-\udbff]/.test(text[start - 1])));
});
await test('bytes are shown as they are', () => assert.equal(dumped(Uint8Array.of(0, 65, 255), 0), `00000000  ${'00 41 ff'.padEnd(48)} |.A.|`));

// Commands: a shell runs each, and the received request equals the original.

await test('a command sends the same bytes, whatever they are', async () => {
  const got = [];
  const server = createServer((request, response) => {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
      got.push({ headers: request.headers, body: Buffer.concat(parts) });
      response.end();
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${server.address().port}/it's?a=1`;
  const marker = '/tmp/hookledger-must-not-be';
  const bodies = [
    '{"a":"it\'s"}', '@/etc/passwd', `'; touch ${marker}; '`, `$(touch ${marker}) \`touch ${marker}\` !! \\ %s %% \\n`, 'two\nlines\n', 'tab\t\u001b[201~\u0007', '漢字 🔥', '', '-', '\r\n',
  ].map((text) => Buffer.from(text));
  bodies.push(Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)), Buffer.alloc(300_000, 'it\'s large\n'), Buffer.alloc(300_000, 0x27));
  const headers = [
    { name: 'X-Quoted', value: `it's "$HOME" \`id\` $(touch ${marker})` },
    { name: 'X-Empty', value: '' },
    { name: 'Content-Type', value: 'application/json' },
    { name: 'Host', value: 'elsewhere.example' },
    { name: 'Content-Length', value: '3' },
  ];
  for (const body of bodies) {
    const command = curl(url, headers, body);
    assert.ok(/^[\n\x20-\x7e]*$/.test(command), 'a command is plain text');
    // On standard input, because the command is longer than an argument may be.
    const { status } = await run('sh', command.replaceAll('curl ', 'curl -s '));
    assert.equal(status, 0);
    const request = got.at(-1);
    assert.ok(request.body.equals(body), `${JSON.stringify(body.toString('latin1').slice(0, 40))} became ${JSON.stringify(request.body.toString('latin1').slice(0, 40))}`);
    assert.equal(request.headers['x-quoted'], headers[0].value);
    assert.equal(request.headers['x-empty'], '');
    assert.equal(request.headers['content-type'], 'application/json');
    assert.notEqual(request.headers.host, 'elsewhere.example');
  }
  assert.equal(got.length, bodies.length);
  assert.notEqual(spawnSync('test', ['-e', marker]).status, 0);
  assert.equal(quoted("a'b"), `'a'\\''b'`);
  server.close();
});

/** With the loop of this process running, since the server is here. */
async function run(shell, input) {
  const { spawn } = await import('node:child_process');
  const child = spawn(shell, [], { stdio: ['pipe', 'ignore', 'inherit'] });
  child.stdin.end(input);
  const [status] = await once(child, 'close');
  return { status };
}

// Rows

const row = (n, more = {}) => ({ webhookId: `w${n}`, id: `id${n}`, status: 'SUCCESS', rejection: null, deadLetteredAt: null, eventType: 'push', errorMessage: null, provider: { id: 'p', providerName: 'GITHUB' }, receivedAt: new Date(1_700_000_000_000 + n * 1000).toISOString(), updatedAt: '2026-01-01T00:00:00Z', signatureValid: true, flagged: false, bodyDiffers: false, suspectedReplay: false, duplicateCount: 0, retryCount: 0, bodySize: 1, ...more });
const page = (from, length) => Array.from({ length }, (_, at) => row(from - at));
const three = () => {
  let list = rows.begun({ rows: page(1000, 100), next: 'c1' }, rows.none);
  list = rows.withNext(list, 'c1', { rows: page(900, 100), next: 'c2' });
  return rows.withNext(list, 'c2', { rows: page(800, 100), next: undefined });
};

await test('rows are found by their place', () => {
  const list = three();
  assert.equal(rows.count(list), 300);
  assert.equal(rows.rowAt(list, 0).webhookId, 'w1000');
  assert.equal(rows.rowAt(list, 250).webhookId, 'w750');
  assert.equal(rows.rowAt(list, 300), undefined);
  assert.equal(rows.indexOf(list, 'w850'), 150);
});
await test('what is far is let go, keeps its place, and comes back', () => {
  let list = rows.begun({ rows: page(5000, 100), next: 'c' }, rows.none);
  for (let at = 1; at < 40; at++) list = rows.withNext(list, `c${at}`, { rows: page(5000 - at * 100, 100), next: 'c' });
  list = rows.trimmed(list, 3900, 3950);
  assert.equal(rows.count(list), 4000);
  assert.ok(list.pages.filter((each) => each.rows).length <= 13);
  assert.equal(rows.rowAt(list, 5), undefined);
  list = rows.withPage(list, 0, { rows: page(5000, 100), next: 'c' });
  assert.equal(rows.rowAt(list, 5).webhookId, 'w4995');
});
await test('a page that shrank does not show the rows of the next one', () => {
  const list = rows.withPage(three(), 1, { rows: page(890, 100), next: 'x' });
  assert.equal(rows.count(list), 290);
  assert.equal(rows.rowAt(list, 190).webhookId, 'w800');
});
await test('new ones come on top, or wait where one looks further down', () => {
  const created = [row(1001)];
  const changes = { rows: new Map([['w1001', created[0]]]), created };
  assert.equal(rows.rowAt(rows.changed(three(), changes, true), 0).webhookId, 'w1001');
  const below = rows.changed(three(), changes, false);
  assert.equal(below.waiting, 1);
  assert.equal(rows.rowAt(below, 0).webhookId, 'w1000');
});
await test('a change is shown in its place, an older one is not', () => {
  const newer = row(990, { status: 'FAILED', updatedAt: '2026-01-02T00:00:00Z' });
  let list = rows.changed(three(), { rows: new Map([['w990', newer]]), created: [] }, true);
  assert.equal(rows.rowAt(list, 10).status, 'FAILED');
  list = rows.changed(list, { rows: new Map([['w990', row(990)]]), created: [] }, true);
  assert.equal(rows.rowAt(list, 10).status, 'FAILED');
});
await test('a flood on top keeps the newest and reads again', () => {
  const created = page(2000, 250);
  const list = rows.changed(three(), { rows: new Map(created.map((each) => [each.webhookId, each])), created }, true);
  assert.ok(list.stale);
  assert.equal(rows.count(list), 100);
  assert.equal(rows.rowAt(list, 0).webhookId, 'w2000');
});

// Filters

const providers = [{ id: 'P1', providerName: 'STRIPE', deletedAt: null }];
const filter = (search) => filters.filterOf(search, providers, Date.parse('2026-01-02T00:00:00Z'));
await test('the address is what the server is asked', () => {
  assert.deepEqual(filters.serverFilter(filter({})), {});
  assert.deepEqual(filters.serverFilter(filter({ status: 'pending,success', provider: 'stripe', q: ' x ', since: '24h' })), {
    text: 'x', status: ['PENDING', 'SUCCESS'], providerId: 'P1', receivedFrom: '2026-01-01T00:00:00.000Z',
  });
  assert.deepEqual(filters.serverFilter(filter({ status: 'rejected' })), { status: ['FAILED'], signatureValid: false });
  assert.deepEqual(filters.serverFilter(filter({ status: 'nonsense', from: 'never', signature: 'maybe' })), {});
  assert.ok(filter({ provider: 'github' }).unknownProvider);
});
await test('a row matches as the server would say', () => {
  assert.ok(filters.matches(filter({ status: 'dead' }), row(1, { status: 'FAILED', deadLetteredAt: 'x' })));
  assert.ok(!filters.matches(filter({ status: 'failed' }), row(1, { status: 'FAILED', deadLetteredAt: 'x' })));
  assert.ok(!filters.matches(filter({ provider: 'stripe' }), row(1)));
});
await test('a failed, a dead and a rejected one stand alone', () => {
  assert.deepEqual(filters.toggled(['pending', 'success'], 'dead'), ['dead']);
  assert.deepEqual(filters.toggled(['dead'], 'success'), ['success']);
});
await test('stretches are of lengths that clocks have', () => {
  const span = spanOf({ from: undefined, to: undefined }, Date.parse('2026-01-02T10:07:00Z'));
  assert.equal(span.step, 900_000);
  assert.ok(span.usual && span.buckets <= 97);
  const long = spanOf({ from: 0, to: Date.parse('2026-01-01') }, 0);
  assert.ok(long.buckets <= 98);
});

// Words

await test('one table has the word, the meaning and the histogram\'s field of every status', async () => {
  const { allStatuses, webhookStatuses, statusOf } = await load('ui/Status.tsx');
  for (const of of ['word', 'means', 'bucket']) assert.equal(new Set(allStatuses.map((status) => webhookStatuses[status][of])).size, allStatuses.length, of);
  const rows = ['PENDING', 'PROCESSING', 'SUCCESS', 'FAILED'].map((status) => ({ status }));
  rows.push({ status: 'FAILED', deadLetteredAt: 'x' }, { status: 'FAILED', rejection: 'signature_invalid' });
  assert.deepEqual(rows.map(statusOf).toSorted(), allStatuses.toSorted());
  for (const status of allStatuses) assert.deepEqual(filters.filterOf({ status }, [], 0).statuses, [status]);
});
await test('the pages use the words of the glossary', () => {
  const files = readdirSync(`${web}src`, { recursive: true }).filter((name) => /\.tsx?$/.test(name));
  const odd = /\b(anew|whoever|somebody|E-mail|at the door|waits for a person|at hand|becomes? of|Standing)\b/;
  const found = files.flatMap((name) => readFileSync(`${web}src/${name}`, 'utf8').split('\n').filter((line) => odd.test(line) && !name.endsWith('schema.d.ts')).map((line) => `${name}: ${line.trim()}`));
  assert.deepEqual(found, []);
});

// Files and groups

await test('no cell is a formula', () => {
  for (const text of ['=1+1', '+1', '-1', '@SUM(A1)', '\t=1', ' =1', '\u200B=1', '＝1', '|cmd', '\r=1']) assert.match(exporting.cell(text), /^"'/);
  assert.equal(exporting.cell('a "quoted", b'), '"a ""quoted"", b"');
  assert.equal(exporting.cell(null), '""');
});
await test('a file holds every row', () => {
  assert.equal(exporting.csv([row(1), row(2)]).split('\r\n').length, 4);
  assert.equal(JSON.parse(exporting.json([row(1), row(2)])).length, 2);
});
await test('dead letters are grouped, and those that were retried are followed', () => {
  const dead = (n, error) => row(n, { status: 'FAILED', deadLetteredAt: 'x', errorMessage: error });
  let known = groups.read(groups.nothing, [dead(1, 'a'), dead(2, 'a'), dead(3, 'b')]);
  assert.deepEqual(groups.grouped(groups.waiting(known)).map(({ error, count }) => `${error} ${count}`), ['a 2', 'b 1']);
  known = groups.changed(known, [row(1, { status: 'PENDING' })]);
  assert.deepEqual(groups.tally(known), { all: 1, succeeded: 0, again: 0, underWay: 1 });
  known = groups.changed(known, [row(1), row(9)]);
  assert.deepEqual(groups.tally(known), { all: 1, succeeded: 1, again: 0, underWay: 0 });
  assert.equal(groups.waiting(known).length, 2);
});

await loader.close();
console.log(JSON.stringify({ tests: done, problems: failed }));
process.exit(failed > 0 ? 1 : 0);
