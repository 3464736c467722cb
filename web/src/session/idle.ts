// A session that nobody uses ends, in all tabs together: an unattended browser leaves no open door.
import { askToSignIn, endSession, token, USED } from './session';

export const IDLE_MINUTES = 30;
/** Milliseconds between two records of use, and between two checks. */
const STEP_MS = 15_000;

/** True if the last use, in any tab, was too long ago. */
export function isIdle(used: string | null, now: number): boolean {
  const at = Number(used);
  // After the clock was set back, the last use is in the future. That must not keep the session open.
  return used !== null && !(at <= now + STEP_MS && now - at < IDLE_MINUTES * 60_000);
}

/** Records use, and signs out after too long without any. */
export function watchUse(): void {
  let noted = 0;
  const check = () => {
    if (!token() || !isIdle(localStorage.getItem(USED), Date.now())) return false;
    localStorage.removeItem(USED);
    void endSession().finally(askToSignIn);
    return true;
  };
  const use = () => {
    const now = Date.now();
    if (Math.abs(now - noted) < STEP_MS || !token() || check()) return;
    noted = now;
    localStorage.setItem(USED, String(now));
  };
  use();
  for (const event of ['pointerdown', 'keydown', 'wheel', 'touchstart'])
    addEventListener(event, use, { passive: true, capture: true });
  document.addEventListener('visibilitychange', () => void check());
  setInterval(check, STEP_MS);
}
