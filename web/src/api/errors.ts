// Errors as sentences for people.
import type { CombinedError } from 'urql';

export function sentence(error: CombinedError | Error | undefined | null): string {
  if (!error) return '';
  const first = 'graphQLErrors' in error ? error.graphQLErrors[0] : undefined;
  if (first) return first.message.charAt(0).toUpperCase() + first.message.slice(1);
  if ('networkError' in error && error.networkError)
    return "The server isn't responding. Check your connection and try again.";
  return error.message;
}

export function code(error: CombinedError | undefined): string | undefined {
  const value = error?.graphQLErrors[0]?.extensions.code;
  return typeof value === 'string' ? value : undefined;
}

/** The ID of this request in the server's log. */
export function requestId(error: CombinedError | undefined): string | undefined {
  const response = error?.response as Response | undefined;
  return response?.headers?.get?.('x-request-id') ?? undefined;
}
