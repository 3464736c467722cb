// Signing secrets: their names at each service, and new ones where we choose them. The server checks their format.
import type { ProviderKind } from '../../ui/ProviderName';

/** The service's name for the secret. */
export const secretWord: Record<ProviderKind, string> = {
  STRIPE: 'Signing secret',
  GITHUB: 'Secret',
  PAYPAL: 'Webhook ID',
  SHOPIFY: 'Signing key or client secret',
  STANDARD: 'Signing secret',
};

/** True if we can choose the secret and enter it at the service. */
export const weChoose: Record<ProviderKind, boolean> = {
  STRIPE: false,
  GITHUB: true,
  PAYPAL: false,
  SHOPIFY: false,
  STANDARD: true,
};

/** 256 random bits, in the format of the service. */
export function newSecret(kind: ProviderKind): string {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  if (kind === 'STANDARD') return `whsec_${btoa(String.fromCharCode(...bytes))}`;
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
