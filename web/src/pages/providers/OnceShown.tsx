import { Alert, Code, Group, Text } from '@mantine/core';
import { IconKey } from '@tabler/icons-react';

import { Copy } from '../../ui/CopyText';

/** A secret that the server tells once and never again. */
export function OnceShown({ secret }: { secret: string }) {
  return (
    <Alert color="yellow" variant="light" icon={<IconKey aria-hidden />} title="Copy this signing secret now">
      <Group gap={6} wrap="nowrap">
        <Code className="foreign" fz="sm" data-testid="signing-secret">
          {secret}
        </Code>
        <Copy value={secret} label="Copy the signing secret" />
      </Group>
      <Text size="sm" mt="xs">
        Your server verifies deliveries with it: <code>webhook-signature</code>, as Standard Webhooks say, with any of
        their libraries. It is not shown again; whoever loses it makes a new one.
      </Text>
    </Alert>
  );
}
