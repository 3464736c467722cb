// GraphiQL with the user's session. It is a separate page, because its code is far larger than the rest.
import 'graphiql/setup-workers/vite';
import 'graphiql/style.css';

import { createGraphiQLFetcher } from '@graphiql/toolkit';
import { GraphiQL } from 'graphiql';
import { createRoot } from 'react-dom/client';

import { askToSignIn, token } from './session/session';

const QUERY = `# Every page uses this API. Ctrl-Space suggests fields; Ctrl-Enter runs the query.
query Webhooks {
  viewer {
    user { email role }
    organization {
      name
      webhooks(first: 10) { nodes { webhookId status eventType receivedAt } }
    }
  }
}
`;

const known = token();
const root = document.getElementById('root');
if (!root) throw new Error('the page has no #root');
if (!known) askToSignIn();
else {
  const authorization = `Bearer ${known}`;
  const url = new URL('/graphql', location.href);
  const socket = new URL(url);
  socket.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  const fetcher = createGraphiQLFetcher({
    url: url.href,
    subscriptionUrl: socket.href,
    headers: { authorization },
    wsConnectionParams: { authorization },
  });
  root.style.height = '100dvh';
  document.body.style.margin = '0';
  createRoot(root).render(<GraphiQL fetcher={fetcher} defaultQuery={QUERY} shouldPersistHeaders={false} />);
}
