import '@mantine/core/styles.css';
import '@mantine/notifications/styles.css';
import './main.css';

import { localStorageColorSchemeManager, MantineProvider } from '@mantine/core';
import { Notifications } from '@mantine/notifications';
import { setNonce } from 'get-nonce';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { Provider } from 'urql';

import { makeClient } from './api/client';
import { App, begin } from './app';
import { watchUse } from './session/idle';
import { theme } from './theme';

// The Content-Security-Policy allows only styles with the nonce of this response.
const nonce = document.querySelector<HTMLMetaElement>('meta[property="csp-nonce"]')?.nonce ?? '';
setNonce(nonce);

watchUse();
begin(location.pathname);
const client = makeClient();
const root = document.getElementById('root');
if (!root) throw new Error('the page has no #root');
createRoot(root).render(
  <StrictMode>
    <MantineProvider
      theme={theme}
      defaultColorScheme="auto"
      colorSchemeManager={localStorageColorSchemeManager({ key: 'hookledger.theme' })}
      getStyleNonce={() => nonce}
    >
      <Notifications position="bottom-right" limit={3} />
      <Provider value={client}>
        <App />
      </Provider>
    </MantineProvider>
  </StrictMode>,
);
