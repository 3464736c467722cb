// Sends a webhook as its service would, optionally with a simulated problem, and shows the result.
import { Alert, Anchor, Button, Select, SimpleGrid, Skeleton, Stack, Text } from '@mantine/core';
import { IconTestPipe } from '@tabler/icons-react';
import { useState } from 'react';
import { useQuery } from 'urql';
import { Link } from 'wouter';

import { useOrganization } from '../../session/viewer';
import { Card } from '../../ui/Card';
import { Empty } from '../../ui/Empty';
import { ErrorCard } from '../../ui/ErrorCard';
import { Page } from '../../ui/Page';
import { PageLoading } from '../../ui/PageLoading';
import { type ProviderKind, providers as services } from '../../ui/ProviderName';
import { useSearch } from '../../url';
import { Draft } from './Draft';
import { Outcome } from './Outcome';
import { SamplesQuery, type Sent, TesterQuery } from './queries';

export default function Tester() {
  const { slug, base, canManage } = useOrganization();
  const [search, change] = useSearch();
  const [{ data, error, fetching }, again] = useQuery({ query: TesterQuery, variables: { slug } });
  const connected = data?.organization?.providers.filter(({ deletedAt }) => !deletedAt);
  if (!connected)
    return error && !fetching ? (
      <ErrorCard error={error} again={() => again({ requestPolicy: 'network-only' })} />
    ) : (
      <PageLoading />
    );
  const provider =
    connected.find(({ providerName }) => services[providerName].slug === search.provider) ?? connected[0];
  if (!provider) {
    return (
      <Page title="Tester">
        <Empty
          icon={IconTestPipe}
          title="Nothing to test yet"
          action={
            canManage && (
              <Button component={Link} href={`${base}/providers/new`}>
                Connect a provider
              </Button>
            )
          }
        >
          Once you connect a provider, you can send signed test webhooks from here and see the result.
        </Empty>
      </Page>
    );
  }
  return (
    <Page
      title="Tester"
      lead="Sends a webhook as the service would: through the public endpoint, signed with the stored secret"
      actions={
        <Select
          size="xs"
          w={200}
          aria-label="Provider"
          allowDeselect={false}
          value={provider.id}
          data={connected.map(({ id, providerName }) => ({ value: id, label: services[providerName].word }))}
          onChange={(id) => {
            const next = connected.find((each) => each.id === id);
            if (next) change({ provider: services[next.providerName].slug, sample: undefined, fault: undefined });
          }}
        />
      }
    >
      {!provider.isActive && (
        <Alert variant="light" color="yellow" mb="md" title={`${services[provider.providerName].word} is deactivated`}>
          Test webhooks are rejected with 403.{' '}
          <Anchor component={Link} size="sm" href={`${base}/providers/${services[provider.providerName].slug}`}>
            Open settings
          </Anchor>
        </Alert>
      )}
      {provider.providerName === 'PAYPAL' ? (
        <Alert variant="light" color="gray" title="PayPal webhooks can't be simulated">
          PayPal signs with its own private key. To test, make a payment in the PayPal sandbox. You can simulate
          webhooks of your other providers here.
        </Alert>
      ) : (
        <WithSamples key={provider.id} providerId={provider.id} kind={provider.providerName} />
      )}
    </Page>
  );
}

function WithSamples({ providerId, kind }: { providerId: string; kind: ProviderKind }) {
  const [{ sample: name }, change] = useSearch();
  // Each request returns samples with new IDs and the current time.
  const [{ data, error, fetching }, again] = useQuery({
    query: SamplesQuery,
    variables: { provider: kind },
    requestPolicy: 'network-only',
  });
  const [sent, setSent] = useState<Sent>();
  // They are read again after each send. Edits are kept until the sample is reset.
  const [wanted, setWanted] = useState(0);
  const [kept, setKept] = useState<{ data: typeof data; round: number }>({ data: undefined, round: -1 });
  if (data && kept.round !== wanted && data !== kept.data) setKept({ data, round: wanted });
  const fresh = () => {
    setWanted(wanted + 1);
    again({ requestPolicy: 'network-only' });
  };
  const samples = kept.data?.sampleWebhooks;
  if (!samples)
    return error && !fetching ? (
      <ErrorCard error={error} again={fresh} />
    ) : (
      <Skeleton height={520} aria-label="Loading" />
    );
  const sample = samples.find((each) => each.name === name) ?? samples[0];
  return (
    <SimpleGrid cols={{ base: 1, md: 2 }} spacing="md">
      <Card title="Request">
        <Stack gap="sm">
          <Select
            label="Sample"
            allowDeselect={false}
            value={sample?.name ?? null}
            data={samples.map(({ name, title, eventType }) => ({ value: name, label: `${title} (${eventType})` }))}
            onChange={(next) => change({ sample: next ?? undefined })}
          />
          {sample && (
            <Draft
              key={`${sample.name} ${kept.round}`}
              providerId={providerId}
              kind={kind}
              sample={sample}
              fresh={fresh}
              sent={setSent}
            />
          )}
        </Stack>
      </Card>
      <Card title="Result">
        <div aria-live="polite">
          {sent ? (
            <Outcome of={sent} />
          ) : (
            <Text size="sm" className="quiet">
              Send a webhook to see the response, the full request, and a link to the stored webhook here.
            </Text>
          )}
        </div>
      </Card>
    </SimpleGrid>
  );
}
