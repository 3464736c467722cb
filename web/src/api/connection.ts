// Whether the socket that changes come through stands; and how often it was made anew, since what happened in between was missed.
import { useSyncExternalStore } from 'react';

export type Connection = {
  state: 'idle' | 'connecting' | 'connected' | 'lost';
  /** Whoever follows changes reads anew when this has grown. */
  reconnections: number;
};

let connection: Connection = { state: 'idle', reconnections: 0 };
const listeners = new Set<() => void>();

export function connectionIs(state: Connection['state'], again = false): void {
  connection = { state, reconnections: connection.reconnections + (again ? 1 : 0) };
  for (const listener of listeners) listener();
}

export function useConnection(): Connection {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => connection,
  );
}
