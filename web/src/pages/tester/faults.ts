// The problems that a test webhook can simulate, and the meanings of the responses.
import type { ProviderKind } from '../../ui/ProviderName';
import type { Fault } from './queries';

export const faults: Record<Fault, { word: string; means: string }> = {
  NONE: { word: 'None (valid request)', means: 'Signed now with the stored secret.' },
  BAD_SIGNATURE: {
    word: 'Bad signature',
    means: 'The signature is for a different body, as if the body was forged or changed by a proxy. Must be rejected.',
  },
  STALE_TIMESTAMP: {
    word: 'Stale timestamp',
    means: 'Signed 1 hour ago, like a replayed request. Must be rejected.',
  },
  DUPLICATE_OF_LAST: {
    word: 'Duplicate of the last webhook',
    means: "Sends the last accepted webhook again. The response has the original's ID, and it is not processed again.",
  },
};

/** Only some services sign a time. */
export function faultsOf(kind: ProviderKind): Fault[] {
  const all: Fault[] = ['NONE', 'BAD_SIGNATURE', 'STALE_TIMESTAMP', 'DUPLICATE_OF_LAST'];
  return kind === 'STRIPE' || kind === 'STANDARD' ? all : all.filter((fault) => fault !== 'STALE_TIMESTAMP');
}

const meanings: Record<string, string> = {
  signature_invalid: 'Rejected: no active secret of this provider signed this body.',
  signature_missing: 'Rejected: the request has no signature.',
  timestamp_out_of_tolerance: 'Rejected: the signature is valid, but its timestamp is too old or in the future.',
  provider_disabled: 'Rejected: this provider is deactivated.',
  organization_disabled: 'Rejected: this organization is deactivated.',
  monthly_limit_reached: 'Rejected: the monthly limit is reached.',
  rate_limited: 'Rejected: too many recent requests to this endpoint were rejected.',
  body_too_large: "Rejected: the body exceeds this deployment's limit.",
  unavailable: 'Not accepted: the service would retry.',
};

/** The meaning of a response, in a sentence. */
export function meaning(status: number, body: string, duplicate: boolean): string {
  if (duplicate) return "Duplicate: the response has the original's ID, and it is not processed again.";
  if (status === 200) return 'Accepted: the signature is valid, and the webhook is stored and being processed.';
  try {
    const { code } = JSON.parse(body) as { code?: unknown };
    return (typeof code === 'string' && meanings[code]) || 'Rejected.';
  } catch {
    return 'Rejected.';
  }
}
