import { Alert, Anchor, Button, Stack, Text, Title } from '@mantine/core';
import { Link } from 'wouter';

import { useOrganization } from '../../session/viewer';
import { type ProviderKind, providers as services } from '../../ui/ProviderName';
import { useAct } from '../../ui/useAct';
import { guides } from './Guide';
import { Connect, type Provider } from './queries';
import { SecretField } from './SecretField';
import { WizardButtons } from './WizardButtons';

type Props = {
  kind: ProviderKind;
  provider: Provider | undefined;
  secret: string;
  setSecret: (secret: string) => void;
  onwards: () => void;
  back: () => void;
};

/** Asks for the secret, and connects the provider. */
export function SecretStep({ kind, provider, secret, setSecret, onwards, back }: Props) {
  const { id, base } = useOrganization();
  const { word, slug } = services[kind];
  const connect = useAct(Connect, { quiet: true });
  if (provider) {
    return (
      <>
        <Alert color="teal" variant="light" title={`${word} is connected`}>
          Its secret is stored encrypted and can't be shown again. To use a different one,{' '}
          <Anchor component={Link} href={`${base}/providers/${slug}?rotate=incoming`} size="sm" underline="always">
            rotate it
          </Anchor>
          .
        </Alert>
        <WizardButtons back={back}>
          <Button onClick={onwards}>Continue</Button>
        </WizardButtons>
      </>
    );
  }
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        void connect
          .act({ input: { organizationId: id, providerName: kind, secret } }, `${word} connected`)
          .then((done) => {
            if (done) onwards();
          });
      }}
    >
      <Stack gap="md">
        <Title order={2}>{kind === 'PAYPAL' ? 'Enter the webhook ID' : 'Enter the signing secret'}</Title>
        <Text size="sm">{guides[kind].secret}</Text>
        <SecretField kind={kind} value={secret} error={connect.error} onChange={setSecret} />
        <Text size="xs" className="quiet">
          Hookledger uses it to verify every webhook. It is stored encrypted and can't be shown again, even to you.
        </Text>
      </Stack>
      <WizardButtons back={back}>
        <Button type="submit" loading={connect.busy} disabled={!secret}>
          Connect {word}
        </Button>
      </WizardButtons>
    </form>
  );
}
