// Audits a server against the GraphQL over HTTP specification.
// GRAPHQL_URL, AUTHORIZATION → {"total","ok","notice","warn","error","failures":[{id,name,status,reason}]}
//
// `error` is a broken MUST and fails the script; `warn` (SHOULD) and `notice` (MAY, such as GET, which
// the server leaves off) are for the caller to judge.

import { serverAudits } from 'graphql-http';
import { CONCURRENCY, env, forEach, run } from './send.mjs';

await run(async () => {
  const authorization = env('AUTHORIZATION');
  const fetchFn = (url, init = {}) =>
    fetch(url, {
      ...init,
      headers: { ...init.headers, authorization },
      redirect: 'manual',
      signal: AbortSignal.timeout(300_000),
    });
  const audits = serverAudits({ url: env('GRAPHQL_URL'), fetchFn });
  const results = await forEach(audits, CONCURRENCY, ({ fn }) => fn());

  const count = (status) => results.filter((result) => result.status === status).length;
  const failures = results
    .filter(({ status }) => status !== 'ok')
    .map(({ id, name, status, reason, response }) => {
      console.error(`${status} ${id} ${name}: ${reason} (${response.status})`);
      return { id, name, status, reason };
    });
  if (count('error') > 0) process.exitCode = 1;
  return {
    total: results.length,
    ok: count('ok'),
    notice: count('notice'),
    warn: count('warn'),
    error: count('error'),
    failures,
  };
});
