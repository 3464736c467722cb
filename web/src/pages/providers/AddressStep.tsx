import { Alert, Button, Code, Stack, Text, Title } from '@mantine/core';

import { Copy } from '../../ui/CopyText';
import { type ProviderKind, providers as services } from '../../ui/ProviderName';
import { AddressGuide } from './Guide';
import { weChoose } from './secret';
import classes from './Wizard.module.css';
import { WizardButtons } from './WizardButtons';

type Props = {
  kind: ProviderKind;
  address: string;
  /** Where it is still at hand. */
  secret: string | undefined;
  isConnected: boolean;
  onwards: () => void;
  back: () => void;
};

/** The address to enter at the service, and how. */
export function AddressStep({ kind, address, secret, isConnected, onwards, back }: Props) {
  const { word } = services[kind];
  return (
    <>
      <Stack gap="md">
        <Title order={2}>Have {kind === 'STANDARD' ? 'the sender' : word} send its webhooks here</Title>
        <div className={classes.address}>
          <Text span className="mono" fz="sm" flex={1} data-testid="address">
            {address}
          </Text>
          <Copy value={address} label="Copy the address" />
        </div>
        {weChoose[kind] && secret && (
          <div>
            <Text size="sm" fw={500} mb={4}>
              Secret
            </Text>
            <div className={classes.address}>
              <Code fz="sm" flex={1} bg="transparent" className="foreign">
                {secret}
              </Code>
              <Copy value={secret} label="Copy the secret" />
            </div>
            <Text size="xs" className="quiet" mt={4}>
              It stands here until this page is left or reloaded, and nowhere after that.
            </Text>
          </div>
        )}
        <AddressGuide kind={kind} />
        {!isConnected && (
          <Alert variant="light" color="gray">
            <Text size="sm">
              Until the secret is entered here, in the next step, webhooks that come are answered with 404.
            </Text>
          </Alert>
        )}
      </Stack>
      <WizardButtons back={back}>
        <Button onClick={onwards}>{isConnected ? 'Done, go on' : 'On to the secret'}</Button>
      </WizardButtons>
    </>
  );
}
