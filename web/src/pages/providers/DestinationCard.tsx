import { ActionIcon, Anchor, Button, Group, Modal, NumberInput, Stack, Switch, Text, TextInput } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { IconPlus, IconTrash } from '@tabler/icons-react';
import { type FormEvent, useState } from 'react';

import { plural } from '../../format';
import { Card } from '../../ui/Card';
import { Confirm } from '../../ui/Confirm';
import { useAct } from '../../ui/useAct';
import { Circuit } from './Circuit';
import { OnceShown } from './OnceShown';
import classes from './ProviderCard.module.css';
import { type Provider, SetDestination } from './queries';

/** Where its webhooks go, and how they fare there. */
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
              {destination ? 'Change' : 'Set one'}
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
            <dd>{destination.timeoutSeconds ? `${destination.timeoutSeconds} s` : "the deployment's own"}</dd>
            <dt>At once</dt>
            <dd>{plural(destination.concurrency ?? 16, 'delivery', 'deliveries')} per node</dd>
            <dt>Headers</dt>
            <dd className="foreign">{destination.headerNames.join(', ') || 'no others'}</dd>
          </dl>
        </>
      ) : (
        <Text size="sm" className="quiet">
          None: webhooks are verified and recorded, and that is all of their processing.
        </Text>
      )}
      <Modal opened={editing} onClose={edit.close} title={destination ? 'Change the destination' : 'Set a destination'}>
        <DestinationForm
          provider={provider}
          close={edit.close}
          done={(secret) => {
            edit.close();
            if (secret) setSigningSecret(secret);
          }}
        />
      </Modal>
      <Modal opened={Boolean(signingSecret)} onClose={() => setSigningSecret(undefined)} title="The destination is set" closeOnClickOutside={false} closeOnEscape={false} size="lg">
        {signingSecret && <OnceShown secret={signingSecret} />}
        <Group justify="flex-end" mt="md">
          <Button onClick={() => setSigningSecret(undefined)}>I have copied it</Button>
        </Group>
      </Modal>
      <Confirm
        opened={removing}
        close={remove.close}
        title="Remove the destination"
        label="Remove"
        danger
        busy={set.busy}
        error={set.error}
        run={() =>
          void set.act({ input: { providerId: provider.id, url: null } }, 'Webhooks are recorded, and not forwarded any more').then((done) => {
            if (done) remove.close();
          })
        }
      >
        Webhooks that come from now on are recorded and not forwarded. {destination && destination.waiting > 0 && `${plural(destination.waiting, 'webhook')} wait for this destination.`}
      </Confirm>
    </Card>
  );
}

type Header = { name: string; value: string };

function DestinationForm({ provider, close, done }: { provider: Provider; close: () => void; done: (signingSecret: string | null) => void }) {
  const { destination } = provider;
  const names = destination?.headerNames ?? [];
  const [url, setUrl] = useState(destination?.url ?? '');
  const [timeout, setTimeout] = useState<number | string>(destination?.timeoutSeconds ?? '');
  const [concurrency, setConcurrency] = useState<number | string>(destination?.concurrency ?? 16);
  const [headers, setHeaders] = useState<readonly Header[] | undefined>(names.length > 0 ? undefined : []);
  const set = useAct(SetDestination, { quiet: true });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const input = {
      providerId: provider.id,
      url,
      timeoutSeconds: timeout === '' ? null : Number(timeout),
      concurrency: concurrency === '' ? null : Number(concurrency),
      // Left out, they stay as they are: their values are not known here.
      ...(headers && { headers: headers.filter(({ name }) => name) }),
    };
    void set.act({ input }, 'The destination is set').then((answer) => {
      if (answer) done(answer.setProviderDestination.signingSecret);
    });
  };
  const put = (index: number, change: Partial<Header>) => setHeaders(headers?.map((header, at) => (at === index ? { ...header, ...change } : header)));
  return (
    <form onSubmit={submit}>
      <Stack gap="sm">
        <TextInput
          label="URL"
          description="https; checked again at each attempt, and redirects are not followed"
          type="url"
          required
          data-autofocus
          maxLength={2048}
          placeholder="https://example.com/webhooks"
          value={url}
          onChange={(event) => setUrl(event.currentTarget.value)}
        />
        <Group grow align="flex-start">
          <NumberInput label="Timeout in seconds" description="Empty: the deployment's own" min={1} max={120} allowDecimal={false} value={timeout} onChange={setTimeout} />
          <NumberInput label="Deliveries at once" description="Per node" min={1} max={256} allowDecimal={false} value={concurrency} onChange={setConcurrency} />
        </Group>
        {names.length > 0 && (
          <Switch
            label={`Replace the headers (${names.join(', ')})`}
            description="Their values are encrypted and cannot be shown, so they are kept, or all written anew"
            checked={headers !== undefined}
            onChange={(event) => setHeaders(event.currentTarget.checked ? names.map((name) => ({ name, value: '' })) : undefined)}
          />
        )}
        {headers?.map(({ name, value }, index) => (
          // A row has no name of its own while it is typed.
          <Group key={index} gap="xs" wrap="nowrap">
            <TextInput flex={2} aria-label={`Name of header ${index + 1}`} placeholder="x-api-key" value={name} onChange={(event) => put(index, { name: event.currentTarget.value.trim() })} />
            <TextInput flex={3} aria-label={`Value of header ${index + 1}`} placeholder="value" autoComplete="off" value={value} onChange={(event) => put(index, { value: event.currentTarget.value })} />
            <ActionIcon variant="subtle" color="gray" aria-label={`Remove header ${index + 1}`} onClick={() => setHeaders(headers.filter((_, at) => at !== index))}>
              <IconTrash size={16} />
            </ActionIcon>
          </Group>
        ))}
        {headers && headers.length < 20 && (
          <Anchor component="button" type="button" size="sm" onClick={() => setHeaders([...headers, { name: '', value: '' }])}>
            <Group gap={4}>
              <IconPlus size={14} aria-hidden /> Send a header with each delivery
            </Group>
          </Anchor>
        )}
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
            Save
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
