// The secrets that services sign with: what form they have, what people paste instead, and new ones where we choose them.
import type { ProviderKind } from '../../ui/ProviderName';

/** What to say of a secret: `refused` is certainly not it, `doubtful` may be. */
export type Opinion = { refused?: string; doubtful?: string };

/** What the secret is called at the service. */
export const secretWord: Record<ProviderKind, string> = {
  STRIPE: 'Signing secret',
  GITHUB: 'Secret',
  PAYPAL: 'Webhook ID',
  SHOPIFY: 'Signing key or client secret',
  STANDARD: 'Signing secret',
};

/** Whether we may choose the secret, and the service takes it. */
export const weChoose: Record<ProviderKind, boolean> = { STRIPE: false, GITHUB: true, PAYPAL: false, SHOPIFY: false, STANDARD: true };

const STANDARD_FORM = 'A Standard Webhooks secret is whsec_ and base64, or whpk_ and the base64 of an ed25519 public key.';

/** Looks at a secret as kindly as one can without knowing it. The server has the last word. */
export function opinion(kind: ProviderKind, secret: string): Opinion {
  if (!secret) return {};
  if (/^https?:/i.test(secret)) return { refused: 'This is an address, not a secret.' };
  switch (kind) {
    case 'STRIPE':
      if (/^(sk|rk)_/.test(secret)) return { refused: 'This is an API key. Webhooks are signed with the secret that begins with whsec_; keep API keys to yourself.' };
      if (/^pk_/.test(secret)) return { refused: 'This is a publishable key. Webhooks are signed with the secret that begins with whsec_.' };
      if (/^we_/.test(secret)) return { refused: 'This is the id of the destination. Its signing secret begins with whsec_.' };
      return secret.startsWith('whsec_') ? {} : { doubtful: 'Signing secrets of Stripe begin with whsec_.' };
    case 'GITHUB':
      if (/^(gh[oprsu]_|github_pat_)/.test(secret)) return { refused: 'This is an access token. The secret of a webhook is any text that you choose.' };
      return secret.length < 16 ? { doubtful: 'A short secret can be guessed. Generate one.' } : {};
    case 'PAYPAL':
      return /^[A-Za-z0-9-]{1,64}$/.test(secret) ? {} : { refused: 'The webhook ID has letters and digits only, like 8PT597110X687430LKGECATA.' };
    case 'SHOPIFY':
      return /^shp(at|ca|pa)_/.test(secret) ? { refused: 'This is an access token. Webhooks are signed with the client secret, or the key below the list of webhooks.' } : {};
    case 'STANDARD':
      return isStandard(secret) ? {} : { refused: STANDARD_FORM };
  }
}

function isStandard(secret: string): boolean {
  const [, prefix, text] = /^(whsec_|whpk_)?([A-Za-z0-9+/]+={0,2})$/.exec(secret) ?? [];
  if (!text) return false;
  try {
    const { length } = atob(text);
    return prefix === 'whpk_' ? length === 32 : length > 0;
  } catch {
    return false;
  }
}

/** 256 random bits, in the form that the service likes. */
export function newSecret(kind: ProviderKind): string {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  if (kind === 'STANDARD') return `whsec_${btoa(String.fromCharCode(...bytes))}`;
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
