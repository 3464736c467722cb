import { Anchor, Button, Group, SimpleGrid, Skeleton, Text, Title } from '@mantine/core';
import { IconPlug, IconPlus } from '@tabler/icons-react';
import { useQuery } from 'urql';
import { Link, useLocation } from 'wouter';

import { useOrganization } from '../../session/viewer';
import { When } from '../../time';
import { useOffer } from '../../ui/commands';
import { Empty } from '../../ui/Empty';
import { ErrorCard } from '../../ui/ErrorCard';
import { Page } from '../../ui/Page';
import { ProviderName, providerKinds, providers as services } from '../../ui/ProviderName';
import { ProviderCard } from './ProviderCard';
import { type Provider, ProvidersQuery } from './queries';

export default function Providers() {
  const { slug, base, canManage } = useOrganization();
  const [, go] = useLocation();
  const [{ data, error, fetching }, again] = useQuery({ query: ProvidersQuery, variables: { slug } });
  const wizard = `${base}/providers/new`;
  useOffer(canManage ? [{ label: 'Connect a provider', run: () => go(wizard) }] : []);
  const all = data?.organization?.providers;
  const connected = all?.filter(({ deletedAt }) => !deletedAt) ?? [];
  const deleted = all?.filter(({ deletedAt }) => deletedAt) ?? [];
  const connect = canManage && (
    <Button component={Link} href={wizard} size="xs" leftSection={<IconPlus size={14} aria-hidden />}>
      Connect a provider
    </Button>
  );
  return (
    <Page
      title="Providers"
      lead="The services that send you webhooks, with figures for the last 24 hours"
      actions={connected.length > 0 && connected.length < providerKinds.length && connect}
    >
      {!all && error && !fetching && <ErrorCard error={error} again={() => again({ requestPolicy: 'network-only' })} />}
      {!all && !error && (
        <SimpleGrid cols={{ base: 1, md: 2, xl: 3 }} spacing="md" role="status" aria-label="Loading">
          {[0, 1, 2].map((card) => (
            <Skeleton key={card} height={262} />
          ))}
        </SimpleGrid>
      )}
      {all && connected.length === 0 && (
        <Empty icon={IconPlug} title="No providers yet" action={connect}>
          {canManage
            ? 'Connect a service to get a webhook URL for it. Hookledger verifies the signature of every webhook. Setup takes a few minutes.'
            : 'Providers appear here once an admin of your organization connects them.'}
        </Empty>
      )}
      <SimpleGrid cols={{ base: 1, md: 2, xl: 3 }} spacing="md">
        {connected.map((provider) => (
          <ProviderCard key={provider.id} provider={provider} />
        ))}
      </SimpleGrid>
      {deleted.length > 0 && <Deleted providers={deleted} />}
    </Page>
  );
}

/** Deleted providers, whose webhooks are still there. */
function Deleted({ providers }: { providers: readonly Provider[] }) {
  const { base, canManage } = useOrganization();
  return (
    <>
      <Title order={2} mt="xl" mb="xs">
        Deleted providers{' '}
      </Title>
      {providers.map(({ id, providerName, deletedAt }) => {
        const { slug } = services[providerName];
        return (
          <Group key={id} gap="md" py={6}>
            <ProviderName kind={providerName} />
            <Text size="sm" className="quiet">
              Deleted <When at={deletedAt} />
            </Text>
            <Anchor component={Link} href={`${base}/webhooks?provider=${slug}`} size="sm">
              View webhooks
            </Anchor>
            {canManage && (
              <Anchor component={Link} href={`${base}/providers/new?service=${slug}`} size="sm">
                Connect again
              </Anchor>
            )}
          </Group>
        );
      })}
    </>
  );
}
