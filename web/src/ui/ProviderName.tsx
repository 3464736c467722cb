import { Group, Text } from '@mantine/core';

export type ProviderKind = 'STRIPE' | 'GITHUB' | 'PAYPAL' | 'SHOPIFY' | 'STANDARD';

export const providers: Record<ProviderKind, { word: string; slug: string; color: string; letter: string }> = {
  STRIPE: { word: 'Stripe', slug: 'stripe', color: '#635bff', letter: 'S' },
  GITHUB: { word: 'GitHub', slug: 'github', color: '#24292f', letter: 'G' },
  PAYPAL: { word: 'PayPal', slug: 'paypal', color: '#003087', letter: 'P' },
  SHOPIFY: { word: 'Shopify', slug: 'shopify', color: '#4d7c1f', letter: 'S' },
  STANDARD: { word: 'Standard Webhooks', slug: 'standard', color: '#0f766e', letter: 'W' },
};

export const providerKinds = Object.keys(providers) as ProviderKind[];

/** A service, by its colour, letter and name. */
export function ProviderName({ kind, size = 'sm' }: { kind: ProviderKind; size?: 'sm' | 'md' }) {
  const { word } = providers[kind];
  return (
    <Group gap={8} wrap="nowrap" miw={0}>
      <ProviderMark kind={kind} size={size === 'sm' ? 18 : 28} />
      <Text span size={size} fw={size === 'md' ? 600 : 400} className="cut">
        {word}
      </Text>
    </Group>
  );
}

export function ProviderMark({ kind, size = 18 }: { kind: ProviderKind; size?: number }) {
  const { color, letter } = providers[kind];
  return (
    <svg width={size} height={size} viewBox="0 0 20 20" aria-hidden style={{ flexShrink: 0 }}>
      <rect width="20" height="20" rx="5" fill={color} stroke="rgb(255 255 255 / 25%)" />
      <text
        x="10"
        y="14"
        fontSize="11"
        fontWeight="700"
        textAnchor="middle"
        fill="#fff"
        fontFamily="system-ui, sans-serif"
      >
        {letter}
      </text>
    </svg>
  );
}
