// A curl command that sends the same request to another URL, usually on the developer's machine.
import { Button, CopyButton, Group, Modal, Skeleton, Stack, Text, TextInput } from '@mantine/core';
import { useMemo, useState } from 'react';

import { bytes } from '../../../format';
import { useOrganization } from '../../../session/viewer';
import { ErrorCard } from '../../../ui/ErrorCard';
import { RawText } from '../../../ui/payload/RawText';
import { curl } from './curl';
import { bytesOf, type Webhook } from './queries';
import { useBody } from './useWebhook';

const KEY = 'hookledger.curl';
const LOCAL = 'http://localhost:3000/webhooks';

export function CurlDialog({ opened, close, of }: { opened: boolean; close: () => void; of: Webhook }) {
  return (
    <Modal opened={opened} onClose={close} title="Copy as curl" size="lg">
      {opened && <Command of={of} />}
    </Modal>
  );
}

function Command({ of: webhook }: { of: Webhook }) {
  const { slug } = useOrganization();
  const { body, error, again } = useBody(slug, webhook.webhookId);
  const [url, setUrl] = useState(() => localStorage.getItem(KEY) ?? LOCAL);
  const command = useMemo(
    () => (body && body.kind !== 'gone' ? curl(url, webhook.headers, bytesOf(body)) : undefined),
    [url, webhook.headers, body],
  );
  if (error) return <ErrorCard error={error} again={again} />;
  if (body?.kind === 'gone') return <Text size="sm">The body is no longer kept, so it can't be sent again.</Text>;
  return (
    <Stack gap="sm">
      <TextInput
        data-autofocus
        label="Send to"
        value={url}
        onChange={(event) => {
          setUrl(event.currentTarget.value);
          localStorage.setItem(KEY, event.currentTarget.value);
        }}
      />
      {command === undefined ? (
        <Skeleton height={160} />
      ) : (
        <RawText text={command.slice(0, 20_000)} label="Command" most={280} />
      )}
      <Text size="xs" className="quiet">
        Includes the sender's headers and signature, so a receiver with the same secret can verify it. Some receivers
        reject signatures older than 5 minutes.
        {command &&
          command.length > 20_000 &&
          ` Only the beginning is shown; the full command (${bytes(command.length)}) is copied.`}
      </Text>
      <Group justify="flex-end">
        <CopyButton value={command ?? ''}>
          {({ copied, copy }) => (
            <Button onClick={copy} disabled={command === undefined} color={copied ? 'teal' : undefined}>
              {copied ? 'Copied' : 'Copy command'}
            </Button>
          )}
        </CopyButton>
      </Group>
    </Stack>
  );
}
