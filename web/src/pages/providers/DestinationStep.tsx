import { Alert, Button, Stack, Text, TextInput, Title } from '@mantine/core';
import { type FormEvent, useState } from 'react';

import { useAct } from '../../ui/useAct';
import { OnceShown } from './OnceShown';
import { type Provider, SetDestination } from './queries';
import { WizardButtons } from './WizardButtons';

/** Asks where to forward webhooks, if anywhere. */
export function DestinationStep({
  provider,
  onwards,
  back,
}: {
  provider: Provider;
  onwards: () => void;
  back: () => void;
}) {
  const [url, setUrl] = useState(provider.destination?.url ?? '');
  const [signingSecret, setSigningSecret] = useState<string>();
  const set = useAct(SetDestination, { quiet: true });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    void set.act({ input: { providerId: provider.id, url } }, 'Destination saved').then((done) => {
      if (!done) return;
      const secret = done.setProviderDestination.signingSecret;
      if (secret) setSigningSecret(secret);
      else onwards();
    });
  };
  if (signingSecret) {
    return (
      <>
        <OnceShown secret={signingSecret} />
        <WizardButtons back={back}>
          <Button onClick={onwards}>I've saved it, continue</Button>
        </WizardButtons>
      </>
    );
  }
  if (provider.destination) {
    return (
      <>
        <Alert variant="light" color="teal" title="Webhooks are forwarded">
          <Text size="sm" className="foreign">
            Destination: {provider.destination.url}. You can change it in the provider's settings.
          </Text>
        </Alert>
        <WizardButtons back={back}>
          <Button onClick={onwards}>Continue</Button>
        </WizardButtons>
      </>
    );
  }
  return (
    <form onSubmit={submit}>
      <Stack gap="md">
        <Title order={2}>Forward webhooks to your server?</Title>
        <Text size="sm">
          Hookledger sends each webhook to this URL byte for byte, signs it, and retries after 1, 5, and 15 minutes if
          your server fails. Without a destination, webhooks are verified and stored, and you can read them here or
          through the API. You can add a destination later.
        </Text>
        <TextInput
          label="Destination URL"
          type="url"
          placeholder="https://example.com/webhooks"
          autoComplete="off"
          maxLength={2048}
          value={url}
          error={set.error}
          onChange={(event) => setUrl(event.currentTarget.value)}
        />
      </Stack>
      <WizardButtons back={back}>
        <Button variant="default" onClick={onwards}>
          Skip (store only)
        </Button>
        <Button type="submit" loading={set.busy} disabled={!url}>
          Add destination
        </Button>
      </WizardButtons>
    </form>
  );
}
