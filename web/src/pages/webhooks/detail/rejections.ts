// Why a request was refused, and what to look at.
export function whyRejected(code: string, provider: string): string {
  switch (code) {
    case 'signature_missing':
      return `The request had no signature, so nothing shows that ${provider} sent it. Check that the sender signs with the secret that is set here.`;
    case 'signature_invalid':
      return `The signature fits none of the secrets that verify now: the secret here is another than ${provider}'s, or something on the way changed the body.`;
    case 'timestamp_out_of_tolerance':
      return 'It was signed too long ago, or in the future: somebody replays an old request, it waited on the way, or a clock is wrong.';
    case 'provider_disabled':
      return `${provider} is deactivated here. Webhooks are accepted again once an admin activates it.`;
    case 'organization_disabled':
      return 'The organization was deactivated when it came, so that nothing was accepted.';
    case 'monthly_limit_reached':
      return 'The webhooks that the plan allows in a month were used up. They are accepted again next month, or with a larger limit.';
    case 'loop_detected':
      return 'It had been delivered several times before it came here. A destination leads back to Hookledger: change its URL.';
    case 'transmission_replayed':
      return 'The id of this transmission came before with another body: somebody who has one valid request tried to pass another one off as genuine.';
    default:
      return 'It was refused at the door and never processed.';
  }
}
