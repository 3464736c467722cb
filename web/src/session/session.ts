// The session's token, shared by all tabs and kept until the session ends.
import { useSyncExternalStore } from 'react';

const KEY = 'hookledger.session';
/** The time of the last use, in any tab. */
export const USED = 'hookledger.used';
const listeners = new Set<() => void>();

export function token(): string | null {
  return localStorage.getItem(KEY);
}

export function signIn(next: string): void {
  localStorage.setItem(KEY, next);
  localStorage.setItem(USED, String(Date.now()));
  announce();
}

/** Forgets the session here. On the server, it ends by `endSession` or `/api/auth/logout`. */
export function forget(): void {
  localStorage.removeItem(KEY);
  announce();
}

/** Ends the session on the server, and here even if the server fails. */
export async function endSession(): Promise<void> {
  const authorization = `Bearer ${token() ?? ''}`;
  await fetch('/api/auth/logout', { method: 'POST', headers: { authorization } }).catch(() => undefined);
  forget();
}

export async function signOut(): Promise<void> {
  await endSession();
  location.assign('/login');
}

/** Opens the sign-in page, which leads back here afterwards. */
export function askToSignIn(): void {
  forget();
  const here = location.pathname + location.search;
  if (!here.startsWith('/login')) location.assign(`/login?next=${encodeURIComponent(here)}`);
}

export function useToken(): string | null {
  return useSyncExternalStore(subscribe, token);
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  addEventListener('storage', listener);
  return () => {
    listeners.delete(listener);
    removeEventListener('storage', listener);
  };
}

function announce(): void {
  for (const listener of listeners) listener();
}
