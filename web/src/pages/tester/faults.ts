// What can be made wrong with a test webhook, and what the answers mean.
import type { ProviderKind } from '../../ui/ProviderName';
import type { Fault } from './queries';

export const faults: Record<Fault, { word: string; means: string }> = {
  NONE: { word: 'Nothing: a genuine one', means: 'Signed now, with the secret that is stored here.' },
  BAD_SIGNATURE: {
    word: 'Bad signature',
    means: 'Another body was signed, as a forger’s or a proxy’s that changed it: it has to be refused.',
  },
  STALE_TIMESTAMP: {
    word: 'Stale timestamp',
    means: 'Signed an hour ago, as one that somebody recorded and plays again: it has to be refused.',
  },
  DUPLICATE_OF_LAST: {
    word: 'Duplicate of the last',
    means:
      'The last accepted webhook once more: it is answered with the first one’s id and not processed again. Body and type are that one’s.',
  },
};

/** Only some services sign a time. */
export function faultsOf(kind: ProviderKind): Fault[] {
  const all: Fault[] = ['NONE', 'BAD_SIGNATURE', 'STALE_TIMESTAMP', 'DUPLICATE_OF_LAST'];
  return kind === 'STRIPE' || kind === 'STANDARD' ? all : all.filter((fault) => fault !== 'STALE_TIMESTAMP');
}

const meanings: Record<string, string> = {
  signature_invalid: 'Refused at the door: no secret of this provider signed this body.',
  signature_missing: 'Refused at the door: nothing is signed.',
  timestamp_out_of_tolerance: 'Refused at the door: the signature is right, and too old or too new.',
  provider_disabled: 'Refused: this provider is deactivated.',
  organization_disabled: 'Refused: this organization is deactivated.',
  monthly_limit_reached: 'Refused: the month’s limit is used up.',
  rate_limited: 'Refused: too many requests of this provider were refused just now.',
  body_too_large: 'Refused: the body is larger than this deployment takes.',
  unavailable: 'Not taken: the service would send it again.',
};

/** An answer in a sentence for people. */
export function meaning(status: number, body: string, duplicate: boolean): string {
  if (duplicate) return 'Known already: answered with the first one’s id, and not processed again.';
  if (status === 200) return 'Accepted: its signature is right, it is in the log, and it is processed now.';
  try {
    const { code } = JSON.parse(body) as { code?: unknown };
    return (typeof code === 'string' && meanings[code]) || 'Refused.';
  } catch {
    return 'Refused.';
  }
}
