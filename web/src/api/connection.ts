// The state of the WebSocket that brings changes, and the number of reconnections: changes in between were missed.
import { useSyncExternalStore } from 'react';

export type Connection = {
  state: 'idle' | 'connecting' | 'connected' | 'lost';
  /** Subscribers read their lists again when this grows. */
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
