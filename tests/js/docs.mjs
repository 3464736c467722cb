// Checks the examples of the documents: every GraphQL operation against schema.graphql, and the Node.js program of
// docs/guides/verifying.md with valid and invalid deliveries. → {"operations", "answers"}

import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { buildSchema, parse, validate } from 'graphql';
import { Webhook } from 'standardwebhooks';
import { run } from './send.mjs';

const root = new URL('../../', import.meta.url);
const read = (path) => readFileSync(new URL(path, root), 'utf8');

/** The code blocks of a document that are in one language. */
const blocks = (document, language) =>
  [...document.matchAll(/^```(\S*)\n(.*?)^```/gms)].filter((block) => block[1] === language).map((block) => block[2]);

function operations() {
  const schema = buildSchema(read('schema.graphql'));
  const pages = readdirSync(new URL('docs/', root), { recursive: true }).filter((path) => path.endsWith('.md'));
  let count = 0;
  for (const page of pages) {
    for (const block of blocks(read(`docs/${page}`), 'graphql').filter((block) => !block.includes('{{#include'))) {
      for (const definition of parse(block).definitions) {
        const errors = validate(schema, { kind: 'Document', definitions: [definition] });
        if (errors.length) throw new Error(`docs/${page}: ${errors[0].message}\n${block}`);
        count += 1;
      }
    }
  }
  return count;
}

async function answers() {
  const secret = `whsec_${Buffer.from('the secret of an example').toString('base64')}`;
  const [program] = blocks(read('docs/guides/verifying.md'), 'js');
  // The packages that it imports are found from here.
  const path = new URL(`./example-${process.pid}.mjs`, import.meta.url);
  const listening = 'server.listen(0, () => console.log(`port ${server.address().port}`));';
  writeFileSync(path, program.replace(/^server\.listen\(.*$/m, listening));
  const server = spawn(process.execPath, [path.pathname], { env: { ...process.env, WEBHOOK_SECRET: secret } });
  try {
    const port = await new Promise((found, failed) => {
      server.stdout.on('data', (data) => /port (\d+)/.test(data) && found(/port (\d+)/.exec(data)[1]));
      server.stderr.on('data', (data) => failed(new Error(String(data))));
      server.on('exit', (code) => failed(new Error(`the example ended with ${code}`)));
    });
    const post = async (body, sent) => {
      const now = new Date();
      const headers = {
        'webhook-id': 'msg_1',
        'webhook-timestamp': String(Math.floor(now.getTime() / 1000)),
        'webhook-signature': new Webhook(secret).sign('msg_1', now, body),
      };
      return (await fetch(`http://127.0.0.1:${port}/`, { method: 'POST', headers, body: sent })).status;
    };
    return [await post('{"a":1}', '{"a":1}'), await post('payload=%7B%7D', 'payload=%7B%7D'), await post('{"a":1}', '{"a":2}')];
  } finally {
    server.kill();
    rmSync(path);
  }
}

await run(async () => ({ operations: operations(), answers: await answers() }));
