// The wizard: from a service to its first verified webhook. The step is in the address; a secret is only ever in memory.
import { Alert, Skeleton, Text } from '@mantine/core';
import { useState } from 'react';
import { useQuery } from 'urql';
import { Link } from 'wouter';

import { useOrganization } from '../../session/viewer';
import { Card } from '../../ui/Card';
import { ErrorCard } from '../../ui/ErrorCard';
import { Page } from '../../ui/Page';
import { type ProviderKind, ProviderName, providerKinds, providers as services } from '../../ui/ProviderName';
import { useSearch } from '../../url';
import { AddressStep } from './AddressStep';
import { ChooseService } from './ChooseService';
import { DestinationStep } from './DestinationStep';
import { FirstWebhook } from './FirstWebhook';
import { ProvidersQuery } from './queries';
import { SecretStep } from './SecretStep';
import { type Step, stepAt, stepsOf, stepWords } from './steps';
import classes from './Wizard.module.css';

export default function ConnectProvider() {
  const { slug, base } = useOrganization();
  const [search, change] = useSearch();
  const [{ data, error, fetching }, again] = useQuery({ query: ProvidersQuery, variables: { slug } });
  const kind = providerKinds.find((each) => services[each].slug === search.service);
  // Kept while this page is open, for this service only, so that it can be copied into the service.
  const [secret, setSecret] = useState<{ kind: ProviderKind; value: string }>();
  const known = data?.organization?.providers;
  if (!known) {
    return (
      <Page title="Connect a provider">
        {error && !fetching ? (
          <ErrorCard error={error} again={() => again({ requestPolicy: 'network-only' })} />
        ) : (
          <Skeleton height={360} aria-label="Loading" />
        )}
      </Page>
    );
  }
  const provider = known.find(({ providerName, deletedAt }) => providerName === kind && !deletedAt);
  const steps = stepsOf(kind);
  const step = stepAt(search.step, kind, Boolean(provider));
  const at = steps.indexOf(step);
  const go = (next: Step) => change({ step: next });
  const onwards = () => go(steps[at + 1] ?? 'first');
  const back = () => (at > 1 ? go(steps[at - 1] ?? 'service') : change({ step: undefined, service: undefined }));
  // The server's own origin, or this page's before any provider is known.
  const origin = known[0] ? new URL(known[0].webhookUrl).origin : location.origin;
  const address = provider?.webhookUrl ?? `${origin}/webhooks/${slug}/${kind ? services[kind].slug : ''}`;
  const kept = secret?.kind === kind ? secret?.value : undefined;
  return (
    <Page
      title="Connect a provider"
      lead={kind ? <ProviderName kind={kind} /> : 'Choose the service you want to receive webhooks from'}
    >
      <ol className={classes.steps} aria-label="Steps">
        {steps.map((each, index) => {
          const reachable = index <= at || stepAt(each, kind, Boolean(provider)) === each;
          const query = new URLSearchParams(kind && index > 0 ? { service: services[kind].slug, step: each } : {});
          return (
            <li
              key={each}
              className={classes.step}
              data-reached={index <= at || undefined}
              aria-current={index === at ? 'step' : undefined}
            >
              {reachable && index !== at ? (
                <Link href={`${base}/providers/new${query.size ? `?${query}` : ''}`}>{stepWords[each]}</Link>
              ) : (
                stepWords[each]
              )}
            </li>
          );
        })}
      </ol>
      <Text size="sm" className="quiet" hiddenFrom="xs" mb="xs">
        Step {at + 1} of {steps.length}: {stepWords[step]}
      </Text>
      {step === 'service' && <ChooseService known={known} />}
      {kind && step !== 'service' && (
        <Card maw={820}>
          {step === 'secret' && (
            <SecretStep
              kind={kind}
              provider={provider}
              secret={kept ?? ''}
              setSecret={(value) => setSecret({ kind, value })}
              onwards={onwards}
              back={back}
            />
          )}
          {step === 'address' && (
            <AddressStep
              kind={kind}
              address={address}
              secret={provider ? kept : undefined}
              isConnected={Boolean(provider)}
              onwards={onwards}
              back={back}
            />
          )}
          {step === 'destination' && provider && <DestinationStep provider={provider} onwards={onwards} back={back} />}
          {step === 'first' && provider && <FirstWebhook provider={provider} back={back} />}
        </Card>
      )}
      {step !== 'service' && !isPublic(address) && (
        <Alert variant="light" color="gray" mt="md" maw={820} title="This URL works only on this machine">
          Services on the internet can't reach {new URL(address).host}.{' '}
          {kind !== 'PAYPAL' && 'You can still send test webhooks. '}To receive real ones, serve Hookledger at a public
          https URL (<code>HOOKLEDGER_BASE_URL</code>) or through a tunnel.
        </Alert>
      )}
    </Page>
  );
}

/** True if a service on the internet can probably reach the URL, judged by its host name. */
function isPublic(address: string): boolean {
  const { hostname, protocol } = new URL(address);
  return (
    protocol === 'https:' &&
    hostname.includes('.') &&
    !/^(10|127|192\.168|172\.(1[6-9]|2\d|3[01]))\.|\.(local|localhost|internal)$/.test(hostname)
  );
}
