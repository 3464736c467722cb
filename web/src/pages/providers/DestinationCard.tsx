import { Button, Checkbox, Group, Modal, Stack, Switch, Text, TextInput } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { type FormEvent, useState } from 'react';

import { plural } from '../../format';
import { Card } from '../../ui/Card';
import { Confirm } from '../../ui/Confirm';
import { type HeaderRow, HeaderRows } from '../../ui/HeaderRows';
import { useAct } from '../../ui/useAct';
import { Circuit } from './Circuit';
import { OnceShown } from './OnceShown';
import classes from './ProviderCard.module.css';
import { type Provider, SetDestination } from './queries';

/** The destination of webhooks, and its health. */
export function DestinationCard({ provider, may }: { provider: Provider; may: boolean }) {
  const { destination } = provider;
  const [editing, edit] = useDisclosure();
  const [removing, remove] = useDisclosure();
  const [signingSecret, setSigningSecret] = useState<string>();
  const set = useAct(SetDestination, { quiet: true });
  return (
    <Card
      title="Destination"
      actions={
        may && (
          <Group gap="xs">
            {destination && (
              <Button variant="default" size="compact-xs" onClick={remove.open}>
                Remove
              </Button>
            )}
            <Button variant="default" size="compact-xs" onClick={edit.open}>
              {destination ? 'Edit' : 'Add destination'}
            </Button>
          </Group>
        )
      }
    >
      {destination ? (
        <>
          <Text size="sm" className="mono foreign">
            {destination.url}
          </Text>
          <Circuit of={destination} />
          <dl className={classes.facts}>
            <dt>Waiting</dt>
            <dd>{plural(destination.waiting, 'webhook')}</dd>
            <dt>Timeout</dt>
            <dd>{destination.timeoutSeconds ? `${destination.timeoutSeconds} s` : 'Default'}</dd>
            <dt>Concurrency</dt>
            <dd>{plural(destination.concurrency, 'delivery', 'deliveries')} per node</dd>
            <dt>Extra headers</dt>
            <dd className="foreign">{destination.headerNames.join(', ') || 'None'}</dd>
            <dt>Sender's signature</dt>
            <dd>{destination.originalSignature ? 'Forwarded' : 'Not forwarded'}</dd>
          </dl>
        </>
      ) : (
        <Text size="sm" className="quiet">
          No destination. Webhooks are verified and stored only.
        </Text>
      )}
      <Modal opened={editing} onClose={edit.close} title={destination ? 'Edit destination' : 'Add destination'}>
        <DestinationForm
          provider={provider}
          close={edit.close}
          done={(secret) => {
            edit.close();
            if (secret) setSigningSecret(secret);
          }}
        />
      </Modal>
      <Modal
        opened={Boolean(signingSecret)}
        onClose={() => setSigningSecret(undefined)}
        title="Destination saved"
        closeOnClickOutside={false}
        closeOnEscape={false}
        size="lg"
      >
        {signingSecret && <OnceShown secret={signingSecret} />}
        <Group justify="flex-end" mt="md">
          <Button onClick={() => setSigningSecret(undefined)}>I've saved it</Button>
        </Group>
      </Modal>
      <Confirm
        opened={removing}
        close={remove.close}
        title="Remove destination"
        label="Remove destination"
        danger
        busy={set.busy}
        error={set.error}
        run={() =>
          void set.act({ input: { providerId: provider.id, url: null } }, 'Destination removed').then((done) => {
            if (done) remove.close();
          })
        }
      >
        New webhooks will be stored, but not forwarded.{' '}
        {destination &&
          destination.waiting > 0 &&
          `${plural(destination.waiting, 'webhook')} waiting for this destination will be held. `}{' '}
        You can add a destination again at any time.
      </Confirm>
    </Card>
  );
}

function DestinationForm({
  provider,
  close,
  done,
}: {
  provider: Provider;
  close: () => void;
  done: (signingSecret: string | null) => void;
}) {
  const { destination } = provider;
  const names = destination?.headerNames ?? [];
  const [url, setUrl] = useState(destination?.url ?? '');
  const [timeout, setTimeout] = useState<number | string>(destination?.timeoutSeconds ?? '');
  const [concurrency, setConcurrency] = useState<number | string>(destination?.concurrency ?? 16);
  const [headers, setHeaders] = useState<readonly HeaderRow[] | undefined>(names.length > 0 ? undefined : []);
  const [originalSignature, setOriginalSignature] = useState(destination?.originalSignature ?? false);
  const set = useAct(SetDestination, { quiet: true });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const input = {
      providerId: provider.id,
      url,
      timeoutSeconds: timeout === '' ? null : Number(timeout),
      concurrency: concurrency === '' ? null : Number(concurrency),
      originalSignature,
      // If they are left out, the server keeps them. Their values are not known here.
      ...(headers && { headers: headers.filter(({ name }) => name) }),
    };
    void set.act({ input }, 'Destination saved').then((answer) => {
      if (answer) done(answer.setProviderDestination.signingSecret);
    });
  };
  return (
    <form onSubmit={submit}>
      <Stack gap="sm">
        <TextInput
          label="URL"
          description="Must use https. Redirects aren't followed."
          type="url"
          required
          data-autofocus
          maxLength={2048}
          placeholder="https://example.com/webhooks"
          value={url}
          onChange={(event) => setUrl(event.currentTarget.value)}
        />
        <Group grow align="flex-start">
          <TextInput
            type="number"
            label="Timeout (seconds)"
            description="Leave empty for the default"
            min={1}
            max={120}
            step={1}
            value={timeout}
            onChange={(event) => setTimeout(event.currentTarget.value)}
          />
          <TextInput
            type="number"
            label="Concurrency"
            description="Deliveries at the same time, per node"
            min={1}
            max={256}
            step={1}
            value={concurrency}
            onChange={(event) => setConcurrency(event.currentTarget.value)}
          />
        </Group>
        {names.length > 0 && (
          <Switch
            label={`Replace the extra headers (${names.join(', ')})`}
            description="The current values are encrypted and can't be shown. Keep them, or enter all of them again."
            checked={headers !== undefined}
            onChange={(event) =>
              setHeaders(event.currentTarget.checked ? names.map((name) => ({ name, value: '' })) : undefined)
            }
          />
        )}
        {headers && <HeaderRows of={headers} onChange={setHeaders} most={20} add="Add header" />}
        <Checkbox
          label="Forward the sender's signature header"
          description="Your server can then also verify deliveries with the sender's library and secret"
          checked={originalSignature}
          onChange={(event) => setOriginalSignature(event.currentTarget.checked)}
        />
        {set.error && (
          <Text size="sm" c="var(--failed)" role="alert">
            {set.error}
          </Text>
        )}
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={close}>
            Cancel
          </Button>
          <Button type="submit" loading={set.busy}>
            Save destination
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
