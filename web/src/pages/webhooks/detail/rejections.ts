// The reasons of rejections, and advice for each.

const words: Record<string, string> = {
  signature_missing: 'missing signature',
  signature_invalid: 'invalid signature',
  timestamp_out_of_tolerance: 'timestamp out of tolerance',
  provider_disabled: 'provider deactivated',
  organization_disabled: 'organization deactivated',
  monthly_limit_reached: 'monthly limit reached',
  loop_detected: 'delivery loop',
  transmission_replayed: 'transmission ID reused',
};

/** The reason in a few words. */
export const rejectionWord = (code: string): string => words[code] ?? code;

export function whyRejected(code: string, provider: string): string {
  switch (code) {
    case 'signature_missing':
      return `The request had no signature, so it can't be verified as coming from ${provider}. Check that the sender signs with the secret set here.`;
    case 'signature_invalid':
      return `The signature doesn't match any active secret. The secret here may differ from ${provider}'s, or the body was changed in transit.`;
    case 'timestamp_out_of_tolerance':
      return 'The signed timestamp is too old or in the future. The request may have been replayed or delayed, or a clock may be wrong.';
    case 'provider_disabled':
      return `${provider} was deactivated when this arrived. An admin can activate it on the provider's page.`;
    case 'organization_disabled':
      return 'The organization was deactivated when this arrived.';
    case 'monthly_limit_reached':
      return 'The monthly limit was reached. Webhooks are accepted again next month, or with a higher limit.';
    case 'loop_detected':
      return 'This webhook had already been delivered several times. A destination leads back to Hookledger; change its URL.';
    case 'transmission_replayed':
      return 'This transmission ID was used before with a different body. Someone may have tried to reuse a valid signature for a forged request.';
    default:
      return 'Rejected on receipt; not processed.';
  }
}
