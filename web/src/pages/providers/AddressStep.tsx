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
  /** The secret, while it is still in memory. */
  secret: string | undefined;
  isConnected: boolean;
  onwards: () => void;
  back: () => void;
};

/** The URL to enter at the service, with instructions. */
export function AddressStep({ kind, address, secret, isConnected, onwards, back }: Props) {
  const { word } = services[kind];
  return (
    <>
      <Stack gap="md">
        <Title order={2}>Point {kind === 'STANDARD' ? 'the sender' : word} at this URL</Title>
        <div className={classes.address}>
          <Text span className="mono" fz="sm" flex={1} data-testid="address">
            {address}
          </Text>
          <Copy value={address} label="Copy URL" />
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
              <Copy value={secret} label="Copy secret" />
            </div>
            <Text size="xs" className="quiet" mt={4}>
              Shown only until you leave this page.
            </Text>
          </div>
        )}
        <AddressGuide kind={kind} />
        {!isConnected && (
          <Alert variant="light" color="gray">
            <Text size="sm">
              Until you enter the secret in the next step, webhooks sent to this URL get a 404 response.
            </Text>
          </Alert>
        )}
      </Stack>
      <WizardButtons back={back}>
        <Button onClick={onwards}>Continue</Button>
      </WizardButtons>
    </>
  );
}
