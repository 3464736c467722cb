import { Alert, Code, Group, Text } from '@mantine/core';
import { IconKey } from '@tabler/icons-react';

import { Copy } from '../../ui/CopyText';

/** A secret that the server returns only once. */
export function OnceShown({ secret }: { secret: string }) {
  return (
    <Alert color="yellow" variant="light" icon={<IconKey aria-hidden />} title="Copy this signing secret now">
      <Group gap={6} wrap="nowrap">
        <Code className="foreign" fz="sm" data-testid="signing-secret">
          {secret}
        </Code>
        <Copy value={secret} label="Copy signing secret" />
      </Group>
      <Text size="sm" mt="xs">
        Your server uses it to verify the <code>webhook-signature</code> header of each delivery, with any Standard
        Webhooks library. It can't be shown again. If you lose it, rotate it.
      </Text>
    </Alert>
  );
}
