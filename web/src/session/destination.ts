// The page to open after signing in. Anyone can craft the address, so only paths of this application are followed. The
// link in the email opens another tab, so `sessionStorage` would not work.

const KEY = 'hookledger.next';

export function rememberDestination(next: string | null): void {
  if (next && isOurs(next)) localStorage.setItem(KEY, next);
}

export function takeDestination(): string {
  const next = localStorage.getItem(KEY);
  localStorage.removeItem(KEY);
  return next && isOurs(next) ? next : '/';
}

/** A path of this application, and not `//elsewhere` or `/\elsewhere`. */
export function isOurs(path: string): boolean {
  if (!/^\/(?![/\\])/.test(path)) return false;
  return (
    new URL(path, location.origin).origin === location.origin && !path.startsWith('/login') && !path.startsWith('/auth')
  );
}
