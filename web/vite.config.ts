import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

// Two pages: the application, and GraphiQL, which is far larger and has a laxer policy for styles.
// The server puts a fresh nonce in the place of `__NONCE__` in every answer.
export default defineConfig({
  plugins: [react()],
  html: { cspNonce: '__NONCE__' },
  build: {
    target: 'es2022',
    manifest: true,
    modulePreload: { polyfill: false },
    // A `data:` URL would need room in the policy.
    assetsInlineLimit: 0,
    rollupOptions: { input: { index: 'index.html', graphiql: 'graphiql.html' } },
    chunkSizeWarningLimit: 5000,
  },
  // GraphiQL's workers cannot be bundled ahead by the development server.
  optimizeDeps: { entries: ['index.html'] },
  server: {
    proxy: {
      '/graphql': { target: process.env.HOOKLEDGER_DEV ?? 'http://127.0.0.1:8080', ws: true, changeOrigin: false },
      '/api': process.env.HOOKLEDGER_DEV ?? 'http://127.0.0.1:8080',
      '/webhooks': process.env.HOOKLEDGER_DEV ?? 'http://127.0.0.1:8080',
    },
  },
});
