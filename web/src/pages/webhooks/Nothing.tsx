// Replaces an empty list: explains what to do next.
import { Button, Code, Group, Stack, Text } from '@mantine/core';
import { notifications } from '@mantine/notifications';
import { IconFilterOff, IconPlug, IconWebhook } from '@tabler/icons-react';
import { useMutation } from 'urql';
import { Link } from 'wouter';

import { sentence } from '../../api/errors';
import { graphql } from '../../api/graphql';
import { useOrganization } from '../../session/viewer';
import { Copy } from '../../ui/CopyText';
import { Empty } from '../../ui/Empty';
import { providers as services } from '../../ui/ProviderName';
import { firstCurl } from './firstCurl';
import type { Surroundings } from './queries';

export function NoProvider() {
  const { base, canManage } = useOrganization();
  return (
    <Empty
      icon={IconPlug}
      title="Connect a provider to receive webhooks"
      action={
        canManage && (
          <Button component={Link} href={`${base}/providers/new`}>
            Connect a provider
          </Button>
        )
      }
    >
      {canManage
        ? 'Choose a service, enter its signing secret, and point it at your webhook URL. Its webhooks appear here as they arrive.'
        : 'Webhooks appear here once an admin of your organization connects a service such as Stripe or GitHub.'}
    </Empty>
  );
}

const SendTest = graphql(`
  mutation SendFirstWebhook($input: SendTestWebhookInput!) {
    sendTestWebhook(input: $input) { webhook { id webhookId } }
  }
`);

export function NoWebhook({ providers, sent }: { providers: Surroundings['providers']; sent: () => void }) {
  const provider = providers.find((each) => each.isActive && !each.deletedAt) ?? providers[0];
  const [{ fetching }, send] = useMutation(SendTest);
  if (!provider) return <NoProvider />;
  const { word } = services[provider.providerName];
  const curl = firstCurl(provider.providerName, provider.webhookUrl);
  const test = async () => {
    const { error } = await send({ input: { providerId: provider.id } });
    if (error) notifications.show({ color: 'red', title: "Couldn't send the test webhook", message: sentence(error) });
    else sent();
  };
  return (
    <Empty
      icon={IconWebhook}
      title="No webhooks yet"
      action={
        <Button loading={fetching} onClick={() => void test()}>
          Send test webhook
        </Button>
      }
    >
      <Stack gap="xs" align="center">
        <Text size="sm">
          {word} is connected. Webhooks sent to <span className="mono">{provider.webhookUrl}</span> appear here as they
          arrive.
        </Text>
        {curl && (
          <Stack gap={4} w="100%" maw={520}>
            <Text size="sm">
              Or send one yourself with this command. Put the signing secret in <span className="mono">SECRET</span>{' '}
              first.{' '}
            </Text>
            <Group gap={4} wrap="nowrap" align="start">
              <Code block fz={12} ta="left" style={{ flex: 1, minWidth: 0 }}>
                {curl}
              </Code>
              <Copy value={curl} label="Copy command" />
            </Group>
          </Stack>
        )}
      </Stack>
    </Empty>
  );
}

export function NoMatch({ clear }: { clear: () => void }) {
  return (
    <Empty
      icon={IconFilterOff}
      title="No webhooks match"
      action={
        <Button variant="default" onClick={clear}>
          Clear filters
        </Button>
      }
    >
      Remove a filter or widen the time range.
    </Empty>
  );
}
