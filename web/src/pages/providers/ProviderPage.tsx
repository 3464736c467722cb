// A provider: its health, its recent webhooks, and its settings.
import { Alert, Anchor, Button, Grid, Group, Stack, Text } from '@mantine/core';
import { useQuery } from 'urql';
import { Link, useParams } from 'wouter';

import { useOrganization } from '../../session/viewer';
import { When } from '../../time';
import { Active } from '../../ui/Active';
import { Card } from '../../ui/Card';
import { CopyText } from '../../ui/CopyText';
import { ErrorCard } from '../../ui/ErrorCard';
import { NotFound } from '../../ui/NotFound';
import { Page } from '../../ui/Page';
import { PageLoading } from '../../ui/PageLoading';
import { providers as services } from '../../ui/ProviderName';
import { ActiveSwitch, DeleteProvider } from './Danger';
import { DestinationCard } from './DestinationCard';
import { HealthCard } from './HealthCard';
import { type Provider, ProvidersQuery } from './queries';
import { Recent } from './Recent';
import { IncomingSecrets, OutgoingSecrets } from './Secrets';
import { useRecent } from './useRecent';

export default function ProviderPage() {
  const { name } = useParams<{ name: string }>();
  const { slug } = useOrganization();
  const [{ data, error, fetching }, again] = useQuery({ query: ProvidersQuery, variables: { slug } });
  const all = data?.organization?.providers;
  if (!all)
    return error && !fetching ? (
      <ErrorCard error={error} again={() => again({ requestPolicy: 'network-only' })} />
    ) : (
      <PageLoading />
    );
  const provider = all.find(({ providerName }) => services[providerName].slug === name);
  return provider ? <Settings provider={provider} key={provider.id} /> : <NotFound what="Provider" />;
}

function Settings({ provider }: { provider: Provider }) {
  const { base, canManage } = useOrganization();
  const { word, slug } = services[provider.providerName];
  const isDeleted = Boolean(provider.deletedAt);
  const may = canManage && !isDeleted;
  return (
    <Page
      title={word}
      lead={
        <Group gap="sm">
          {isDeleted ? (
            <Text size="sm">
              Deleted <When at={provider.deletedAt} />
            </Text>
          ) : (
            <Active is={provider.isActive} />
          )}
          <Text size="sm">
            Connected <When at={provider.createdAt} />
          </Text>
        </Group>
      }
      actions={
        <>
          <Button variant="default" size="xs" component={Link} href={`${base}/webhooks?provider=${slug}`}>
            View webhooks
          </Button>
          {!isDeleted && (
            <Button variant="default" size="xs" component={Link} href={`${base}/tester?provider=${slug}`}>
              Send test webhook
            </Button>
          )}
          {may && <ActiveSwitch provider={provider} />}
        </>
      }
    >
      {isDeleted && (
        <Alert variant="light" color="gray" mb="md" title="This provider is deleted">
          Its webhook URL returns 404. Webhooks received earlier are kept.{' '}
          {canManage && (
            <Anchor component={Link} href={`${base}/providers/new?service=${slug}`} size="sm" underline="always">
              Connect again
            </Anchor>
          )}
        </Alert>
      )}
      {!isDeleted && !provider.isActive && (
        <Alert variant="light" color="yellow" mb="md" title="This provider is deactivated">
          Its webhooks are rejected with 403, and the service may stop sending them. Webhooks already accepted are still
          processed.
        </Alert>
      )}
      <Grid gap="md">
        <Grid.Col span={{ base: 12, md: 7 }}>
          <Stack gap="md">
            <HealthCard provider={provider} />
            <RecentCard provider={provider} />
          </Stack>
        </Grid.Col>
        <Grid.Col span={{ base: 12, md: 5 }}>
          {!isDeleted && (
            <Stack gap="md">
              <Card title="Webhook URL">
                <CopyText value={provider.webhookUrl} label="Copy webhook URL" />
                {canManage && (
                  <Anchor component={Link} href={`${base}/providers/new?service=${slug}&step=address`} size="sm">
                    How to set it up at {provider.providerName === 'STANDARD' ? 'the sender' : word}
                  </Anchor>
                )}
              </Card>
              <DestinationCard provider={provider} may={may} />
              {provider.destination && <OutgoingSecrets provider={provider} may={may} />}
              <IncomingSecrets provider={provider} may={may} />
              {may && <DeleteProvider provider={provider} />}
            </Stack>
          )}
        </Grid.Col>
      </Grid>
    </Page>
  );
}

function RecentCard({ provider }: { provider: Provider }) {
  const { base } = useOrganization();
  const { rows, isFirst, error, again } = useRecent(provider.id, 10);
  const all = (
    <Anchor component={Link} href={`${base}/webhooks?provider=${services[provider.providerName].slug}`} size="sm">
      View all
    </Anchor>
  );
  return (
    <Card title="Recent webhooks" actions={all}>
      {error ? (
        <ErrorCard error={error} again={again} />
      ) : (
        <Recent rows={rows} isFirst={isFirst} empty="No webhooks yet." />
      )}
    </Card>
  );
}
