import { Anchor, Checkbox, Group, PasswordInput, Text } from '@mantine/core';
import { Copy } from '../../ui/CopyText';
import type { ProviderKind } from '../../ui/ProviderName';
import { newSecret, secretWord, weChoose } from './secret';
import { useOpinion } from './useOpinion';

type Props = {
  kind: ProviderKind;
  value: string;
  onChange: (value: string) => void;
  /** The server's answer. */
  error?: string;
  /** Present if PayPal's simulator can be accepted. */
  simulator?: { accepted: boolean; accept: (accepted: boolean) => void };
};

const described: Record<ProviderKind, string> = {
  STRIPE: 'Begins with whsec_. Shown on the destination page at Stripe',
  GITHUB: 'Any text that only GitHub and Hookledger know',
  PAYPAL: "Shown in the list of webhooks of your PayPal app. It isn't secret, but it belongs to this URL only",
  SHOPIFY: 'Shown below the list of webhooks in Settings → Notifications. For an app, use its client secret',
  STANDARD: 'A whsec_ secret from the sender, or one you choose and give to the sender. Public keys begin with whpk_',
};

/** A field for a secret. The secret is stored nowhere else, and white space around it is ignored. */
export function SecretField({ kind, value, onChange, error, simulator }: Props) {
  const { refused, doubtful, isSimulator } = useOpinion(kind, value);
  const asks = isSimulator && simulator;
  return (
    <div>
      <PasswordInput
        label={secretWord[kind]}
        description={described[kind]}
        required
        autoComplete="off"
        spellCheck={false}
        data-1p-ignore
        data-lpignore="true"
        maxLength={1024}
        visibilityToggleButtonProps={{ 'aria-label': 'Show or hide' }}
        value={value}
        error={(!asks && refused) || error}
        onChange={(event) => onChange(event.currentTarget.value.trim())}
      />
      {asks && (
        <Checkbox
          mt="xs"
          label="Accept webhooks from PayPal's simulator"
          description="Anyone with a PayPal account can send them here."
          checked={simulator.accepted}
          onChange={(event) => simulator.accept(event.currentTarget.checked)}
        />
      )}
      {doubtful && !error && (
        <Text size="xs" c="var(--pending)" mt={4} role="status">
          {doubtful}
        </Text>
      )}
      {weChoose[kind] && (
        <Group gap={6} mt={6} h={22}>
          <Anchor component="button" type="button" size="sm" onClick={() => onChange(newSecret(kind))}>
            Generate a secret
          </Anchor>
          {value && <Copy value={value} label="Copy secret" />}
        </Group>
      )}
    </div>
  );
}
