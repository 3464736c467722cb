import {
  Anchor,
  Box,
  Button,
  Group,
  Radio,
  SegmentedControl,
  Select,
  SimpleGrid,
  Stack,
  Text,
  Textarea,
  TextInput,
  Title,
} from '@mantine/core';
import { useState } from 'react';
import { useQuery } from 'urql';
import { Link } from 'wouter';

import { Card } from '../../ui/Card';
import { ErrorCard } from '../../ui/ErrorCard';
import { Logo } from '../../ui/Logo';
import { PageLoading } from '../../ui/PageLoading';
import { type ProviderKind, providers as services } from '../../ui/ProviderName';
import { useSearch } from '../../url';
import classes from './Demo.module.css';
import { type DemoProvider, DemoQuery, type Fault, SamplesQuery } from './queries';
import { Steps } from './Steps';
import { useDemo } from './useDemo';

/** A public demo of a webhook from end to end, without an account. */
export default function Demo() {
  const [{ data, error, fetching }, again] = useQuery({ query: DemoQuery });
  return (
    <Box maw={1280} mx="auto" p={{ base: 'sm', sm: 'lg' }} component="main">
      <Group justify="space-between" mb="lg">
        <Link href="/" aria-label="Hookledger: home" className={classes.home}>
          <Logo />
        </Link>
        <Button component={Link} href="/login" variant="default" size="xs">
          Sign in
        </Button>
      </Group>
      <Title order={1}>Follow a webhook end to end</Title>
      <Text className="quiet" maw={720} mt={4} mb="lg">
        Choose a webhook to send. Hookledger signs it as the service would and sends it through the public endpoint. You
        can watch every step. Then try to break something.
      </Text>
      {error && !data && !fetching && (
        <ErrorCard error={error} again={() => again({ requestPolicy: 'network-only' })} />
      )}
      {!data && !error && <PageLoading />}
      {data && <Bench of={data.demo.providers.filter(({ canSign }) => canSign)} />}
    </Box>
  );
}

function Bench({ of }: { of: readonly DemoProvider[] }) {
  const [search, change] = useSearch();
  const provider = of.find(({ providerName }) => services[providerName].slug === search.service) ?? of[0];
  const kind = provider?.providerName ?? 'GITHUB';
  const [{ data }] = useQuery({ query: SamplesQuery, variables: { providerName: kind } });
  const samples = data?.demo.samples ?? [];
  const sample = samples.find(({ name }) => name === search.sample) ?? samples[0];
  const [edited, setEdited] = useState<{ of: string; body: string }>();
  const [fault, setFault] = useState<Fault>('none');
  const { last, busy, error, send, forget } = useDemo();
  if (!provider) return null;
  const key = `${kind} ${sample?.name ?? ''}`;
  const body = edited?.of === key ? edited.body : (sample?.body ?? '');
  const repeatable = last?.draft.providerName === kind && last.sent.answer.status === 200 ? last : undefined;
  const chosen = (fault === 'again' || fault === 'other-body') && !repeatable ? 'none' : fault;
  const submit = () =>
    sample && void send({ providerName: kind, eventType: sample.eventType, body }, chosen, repeatable);
  return (
    <SimpleGrid cols={{ base: 1, md: 2 }} spacing="md">
      <Card>
        <form
          onSubmit={(event) => {
            event.preventDefault();
            submit();
          }}
        >
          <Stack gap="md">
            <SegmentedControl
              aria-label="Service"
              fullWidth
              className={classes.services}
              value={kind}
              data={of.map(({ providerName }) => ({
                value: providerName,
                label: providerName === 'STANDARD' ? 'Standard' : services[providerName].word,
              }))}
              onChange={(next) => {
                change({ service: services[next as ProviderKind].slug, sample: undefined });
                setFault('none');
                forget();
              }}
            />
            <Select
              label="Sample"
              allowDeselect={false}
              value={sample?.name ?? null}
              data={samples.map(({ name, title, eventType }) => ({ value: name, label: `${title} (${eventType})` }))}
              onChange={(next) => change({ sample: next ?? undefined })}
            />
            <Textarea
              label="Body"
              description="You can edit the body; it is signed as shown"
              autosize
              minRows={8}
              maxRows={16}
              maxLength={65_536}
              spellCheck={false}
              classNames={{ input: 'mono' }}
              value={body}
              onChange={(event) => setEdited({ of: key, body: event.currentTarget.value })}
            />
            <Radio.Group label="Simulate a problem" value={chosen} onChange={(next) => setFault(next as Fault)}>
              <Stack gap={6} mt={6}>
                <Radio value="none" label="None (valid request)" />
                <Radio value="broken" label="Signature for a different body" />
                {provider.toleranceSeconds !== null && <Radio value="stale" label="Signed 1 hour ago" />}
                <Radio value="again" label="Duplicate of the last webhook" disabled={!repeatable} />
                <Radio value="other-body" label="Same event ID, different body" disabled={!repeatable} />
              </Stack>
            </Radio.Group>
            <TextInput label="Webhook URL" readOnly value={provider.webhookUrl} classNames={{ input: 'mono' }} />
            {error && (
              <Text size="sm" c="var(--failed)" role="alert">
                {error}
              </Text>
            )}
            <Button type="submit" size="md" loading={busy} disabled={!sample}>
              Sign and send webhook
            </Button>
          </Stack>
        </form>
      </Card>
      <Card title="Result" mih={480}>
        {last && services[last.draft.providerName] && last.draft.providerName === kind ? (
          <Steps of={last} provider={provider} />
        ) : (
          <Text size="sm" className="quiet">
            The steps appear here as they happen: signed, sent, verified, stored, answered, and processed.
          </Text>
        )}
        <Text size="xs" className="quiet" mt="md">
          This sandbox is shared. It accepts a few webhooks per minute and is cleared regularly. With your own
          organization, webhooks appear in{' '}
          <Anchor component={Link} href="/login" size="xs" underline="always">
            your dashboard
          </Anchor>{' '}
          and are forwarded to your servers.
        </Text>
      </Card>
    </SimpleGrid>
  );
}
