import { Alert, Button, Group, Loader, Stack, Text, Title } from '@mantine/core';
import { IconCircleCheck } from '@tabler/icons-react';
import { Link } from 'wouter';

import { useOrganization } from '../../session/viewer';
import { ErrorCard } from '../../ui/ErrorCard';
import { providers as services } from '../../ui/ProviderName';
import { useAct } from '../../ui/useAct';
import { listOf, useSearch } from '../../url';
import { guides } from './Guide';
import { type Provider, SendTest } from './queries';
import { Recent } from './Recent';
import { useRecent } from './useRecent';
import { WizardButtons } from './WizardButtons';

/** Waits for the first webhook, and explains the result. */
export function FirstWebhook({ provider, back }: { provider: Provider; back: () => void }) {
  const { base } = useOrganization();
  const { rows, isFirst, error, again, put } = useRecent(provider.id, 5);
  // The address holds the tests, so that they are not taken for genuine webhooks after a reload.
  const [search, change] = useSearch();
  const tests = new Set(listOf(search.tests));
  const test = useAct(SendTest, { quiet: true });
  const { word, slug } = services[provider.providerName];
  const sender = provider.providerName === 'STANDARD' ? 'the sender' : word;
  const real = rows.find(
    ({ webhookId, signatureValid, rejection }) => signatureValid && !rejection && !tests.has(webhookId),
  );
  const refused = rows.find(({ webhookId, rejection }) => rejection && !tests.has(webhookId));
  const ownTest = rows.find(({ webhookId }) => tests.has(webhookId));
  const send = () =>
    void test.act({ input: { providerId: provider.id } }).then((done) => {
      const webhook = done?.sendTestWebhook.webhook;
      if (!webhook) return;
      change({ tests: [webhook.webhookId, ...tests].slice(0, 5).join(',') }, { replace: true });
      put(webhook);
    });
  return (
    <>
      <Stack gap="md">
        <Title order={2}>{real ? 'First webhook verified' : 'Receive the first webhook'}</Title>
        <div aria-live="polite">
          {real && (
            <Alert color="teal" variant="light" icon={<IconCircleCheck aria-hidden />} title="Verified">
              <Text size="sm">
                A webhook from {sender} arrived, and its signature is valid.{' '}
                <Link href={`${base}/webhooks/${real.webhookId}`}>View webhook</Link>
              </Text>
            </Alert>
          )}
          {!real && (
            <Group gap="sm" wrap="nowrap" role="status">
              <Loader size="sm" aria-hidden />
              <Text size="sm">
                Waiting for a webhook from {sender}. {guides[provider.providerName].first}
              </Text>
            </Group>
          )}
          {!real && refused && (
            <Alert color="red" variant="light" mt="sm" title="A webhook was rejected">
              <Text size="sm" className="foreign">
                {refused.errorMessage ?? refused.rejection}
              </Text>
              <Text size="sm" mt={4}>
                {refused.rejection === 'signature_invalid' && (
                  <>
                    The secret here probably differs from the one at the service.{' '}
                    <Link href={`${base}/providers/${slug}?rotate=incoming`}>Enter it again</Link>.{' '}
                  </>
                )}
                <Link href={`${base}/webhooks/${refused.webhookId}`}>View request</Link>
              </Text>
            </Alert>
          )}
          {!real && ownTest && !ownTest.rejection && (
            <Text size="sm" mt="sm">
              The test was accepted{provider.destination ? ' and is being sent to your destination' : ''}. Hookledger
              signed it with the secret stored here. Only a webhook from {sender} shows that both sides use the same
              secret.
            </Text>
          )}
        </div>
        {error && <ErrorCard error={error} again={again} />}
        {!error && <Recent rows={rows} isFirst={isFirst} tests={tests} empty="No webhooks yet." />}
        {test.error && (
          <Text size="sm" c="var(--failed)" role="alert">
            {test.error}
          </Text>
        )}
        {provider.providerName === 'PAYPAL' && (
          <Text size="sm" className="quiet">
            You can't send a test from here: PayPal signs with its own private key.
          </Text>
        )}
      </Stack>
      <WizardButtons back={back}>
        {provider.providerName !== 'PAYPAL' && (
          <Button variant="default" loading={test.busy} onClick={send}>
            Send test webhook
          </Button>
        )}
        <Button component={Link} href={`${base}/providers/${slug}`} variant={real ? 'filled' : 'default'}>
          {real ? 'Finish' : 'Finish without waiting'}
        </Button>
      </WizardButtons>
    </>
  );
}
