// A provider's signing secrets, incoming and outgoing, and their rotation.
import { Badge, Button, Group, Modal, Select, Stack, Table, Text, TextInput } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { type FormEvent, useState } from 'react';

import { useNow, When } from '../../time';
import { Card } from '../../ui/Card';
import { providers as services } from '../../ui/ProviderName';
import { useAct } from '../../ui/useAct';
import { useSearch } from '../../url';
import { OnceShown } from './OnceShown';
import {
  AddSecret,
  LabelSecret,
  type Provider,
  RevokeSecret,
  RotateSecret,
  RotateSigningSecret,
  type Secret,
} from './queries';
import { SecretField } from './SecretField';

const graces = [
  { value: '0', label: 'Revoke immediately' },
  { value: '3600', label: '1 hour' },
  { value: '86400', label: '1 day' },
  { value: '259200', label: '3 days' },
  { value: '604800', label: '7 days' },
  { value: '2592000', label: '30 days' },
];

/** The secrets that verify incoming webhooks. */
export function IncomingSecrets({ provider, may }: { provider: Provider; may: boolean }) {
  // A link can open the dialog, for example after a rejected webhook.
  const [{ rotate }, change] = useSearch();
  const opened = may && rotate === 'incoming';
  const [adding, add] = useDisclosure();
  const [changed, setChanged] = useState<Secret>();
  return (
    <Card
      title={provider.providerName === 'PAYPAL' ? 'Webhook ID' : 'Incoming signing secrets'}
      actions={
        may && (
          <Group gap="xs">
            <Button variant="default" size="compact-xs" onClick={add.open}>
              Add secret
            </Button>
            <Button variant="default" size="compact-xs" onClick={() => change({ rotate: 'incoming' })}>
              Rotate secret
            </Button>
          </Group>
        )
      }
    >
      <Versions
        secrets={provider.secrets}
        used
        edit={may ? (version) => setChanged(provider.secrets.find((secret) => secret.version === version)) : undefined}
      />
      <Modal opened={adding} onClose={add.close} title="Add secret">
        <AddIncoming provider={provider} close={add.close} />
      </Modal>
      <Modal
        opened={Boolean(changed)}
        onClose={() => setChanged(undefined)}
        title={`Secret version ${changed?.version ?? ''}`}
      >
        {changed && <EditIncoming provider={provider} secret={changed} close={() => setChanged(undefined)} />}
      </Modal>
      <Modal opened={opened} onClose={() => change({ rotate: undefined }, { replace: true })} title="Rotate secret">
        <RotateIncoming provider={provider} close={() => change({ rotate: undefined }, { replace: true })} />
      </Modal>
    </Card>
  );
}

/** Adds a secret that stays, such as that of a second endpoint with the same URL. */
function AddIncoming({ provider, close }: { provider: Provider; close: () => void }) {
  const kind = provider.providerName;
  const [secret, setSecret] = useState('');
  const [label, setLabel] = useState('');
  const [accepted, accept] = useState(false);
  const add = useAct(AddSecret, { quiet: true });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    void add
      .act({ input: { providerId: provider.id, secret, label, acceptSimulator: accepted } }, 'Secret added')
      .then((done) => {
        if (done) close();
      });
  };
  return (
    <form onSubmit={submit}>
      <Stack gap="sm">
        <Text size="sm">
          The new secret is active alongside the others until you revoke it. Use it for a second endpoint that sends to
          the same URL.
        </Text>
        <TextInput
          label="Label"
          description="Helps you tell your secrets apart"
          required
          maxLength={64}
          value={label}
          onChange={(event) => setLabel(event.currentTarget.value)}
        />
        <SecretField
          kind={kind}
          value={secret}
          error={add.error}
          onChange={setSecret}
          simulator={{ accepted, accept }}
        />
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={close}>
            Cancel
          </Button>
          <Button type="submit" loading={add.busy} disabled={!secret || !label.trim()}>
            Add secret
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

/** Renames or revokes one secret. */
function EditIncoming({ provider, secret, close }: { provider: Provider; secret: Secret; close: () => void }) {
  const [label, setLabel] = useState(secret.label ?? '');
  const rename = useAct(LabelSecret, { quiet: true });
  const revoke = useAct(RevokeSecret, { quiet: true });
  const of = { providerId: provider.id, version: secret.version };
  const error = rename.error ?? revoke.error;
  const closeIf = (done: unknown) => {
    if (done) close();
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        void rename.act({ input: { ...of, label } }, 'Label saved').then(closeIf);
      }}
    >
      <Stack gap="sm">
        <TextInput
          label="Label"
          required
          maxLength={64}
          value={label}
          onChange={(event) => setLabel(event.currentTarget.value)}
        />
        <Text size="sm">Once revoked, webhooks signed with this secret are rejected. This can't be undone.</Text>
        {error && (
          <Text size="sm" c="var(--failed)" role="alert">
            {error}
          </Text>
        )}
        <Group justify="space-between" gap="xs">
          <Button
            color="red"
            variant="light"
            loading={revoke.busy}
            onClick={() => void revoke.act({ input: of }, 'Secret revoked').then(closeIf)}
          >
            Revoke immediately
          </Button>
          <Button type="submit" loading={rename.busy} disabled={!label.trim()}>
            Save label
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

function RotateIncoming({ provider, close }: { provider: Provider; close: () => void }) {
  const kind = provider.providerName;
  const { word } = services[kind];
  const [secret, setSecret] = useState('');
  const [grace, setGrace] = useState('86400');
  const staying = provider.secrets.filter(({ expiresAt }) => !expiresAt);
  const [replaces, setReplaces] = useState<string | null>(null);
  const rotate = useAct(RotateSecret, { quiet: true });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    void rotate
      .act(
        {
          input: {
            providerId: provider.id,
            secret,
            graceSeconds: Number(grace),
            replacesVersion: replaces ? Number(replaces) : undefined,
          },
        },
        'Secret rotated',
      )
      .then((done) => {
        if (done) close();
      });
  };
  return (
    <form onSubmit={submit}>
      <Stack gap="sm">
        <Text size="sm">
          Enter the new secret here first, then at {kind === 'STANDARD' ? 'the sender' : word}. Both secrets stay active
          in the meantime, so no webhook is lost. This page shows when each was last used.
        </Text>
        {staying.length > 1 && (
          <Select
            label="Secret to replace"
            required
            data={staying.map(({ version, label }) => ({
              value: String(version),
              label: label ?? `Version ${version}`,
            }))}
            value={replaces}
            onChange={setReplaces}
          />
        )}
        <SecretField kind={kind} value={secret} error={rotate.error} onChange={setSecret} />
        <Select
          label="Keep the old secret active for"
          allowDeselect={false}
          data={graces}
          value={grace}
          onChange={(next) => setGrace(next ?? '86400')}
        />
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={close}>
            Cancel
          </Button>
          <Button type="submit" loading={rotate.busy} disabled={!secret || (staying.length > 1 && !replaces)}>
            Rotate secret
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

/** The secrets that sign deliveries. */
export function OutgoingSecrets({ provider, may }: { provider: Provider; may: boolean }) {
  const [opened, { open, close }] = useDisclosure();
  const [grace, setGrace] = useState('86400');
  const [secret, setSecret] = useState<string>();
  const rotate = useAct(RotateSigningSecret, { quiet: true });
  const leave = () => {
    close();
    setSecret(undefined);
    rotate.clear();
  };
  return (
    <Card
      title="Outgoing signing secrets"
      actions={
        may && (
          <Button variant="default" size="compact-xs" onClick={open}>
            Rotate secret
          </Button>
        )
      }
    >
      <Versions secrets={provider.destination?.secrets ?? []} />
      <Modal
        opened={opened}
        onClose={leave}
        title="Rotate signing secret"
        size={secret ? 'lg' : undefined}
        closeOnClickOutside={!secret}
        closeOnEscape={!secret}
      >
        {secret ? (
          <>
            <OnceShown secret={secret} />
            <Group justify="flex-end" mt="md">
              <Button onClick={leave}>I've saved it</Button>
            </Group>
          </>
        ) : (
          <Stack gap="sm">
            <Text size="sm">
              The new secret is shown once. Deliveries are signed with both secrets until the old one expires. Update
              your server before then.
            </Text>
            <Select
              label="Keep the old secret active for"
              allowDeselect={false}
              data={graces}
              value={grace}
              onChange={(next) => setGrace(next ?? '86400')}
            />
            {rotate.error && (
              <Text size="sm" c="var(--failed)" role="alert">
                {rotate.error}
              </Text>
            )}
            <Group justify="flex-end" gap="xs">
              <Button variant="default" onClick={leave}>
                Cancel
              </Button>
              <Button
                loading={rotate.busy}
                onClick={() =>
                  void rotate.act({ input: { providerId: provider.id, graceSeconds: Number(grace) } }).then((done) => {
                    if (done) setSecret(done.rotateDestinationSecret.signingSecret);
                  })
                }
              >
                Rotate secret
              </Button>
            </Group>
          </Stack>
        )}
      </Modal>
    </Card>
  );
}

type Version = Pick<Secret, 'version' | 'setAt' | 'expiresAt'> &
  Partial<Pick<Secret, 'label' | 'lastUsedAt' | 'safeToRetire'>>;

function Versions({
  secrets,
  used = false,
  edit,
}: {
  secrets: readonly Version[];
  used?: boolean;
  edit?: (version: number) => void;
}) {
  const now = useNow();
  const labelled = secrets.some(({ label }) => label);
  return (
    <Table.ScrollContainer minWidth={320} type="native" tabIndex={0} role="region" aria-label="Secrets">
      <Table withRowBorders={false} verticalSpacing={4} horizontalSpacing={6}>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Version</Table.Th>
            {labelled && <Table.Th>Label</Table.Th>}
            <Table.Th>Created</Table.Th>
            {used && <Table.Th>Last used</Table.Th>}
            <Table.Th>Status</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {secrets.map((secret) => (
            <Table.Tr key={secret.version}>
              <Table.Td>{secret.version}</Table.Td>
              {labelled && <Table.Td>{secret.label ?? <span className="quiet">None</span>}</Table.Td>}
              <Table.Td>
                <When at={secret.setAt} />
              </Table.Td>
              {used && (
                <Table.Td>
                  {secret.lastUsedAt ? <When at={secret.lastUsedAt} /> : <span className="quiet">Never</span>}
                </Table.Td>
              )}
              <Table.Td>
                <VersionState of={secret} now={now} />
              </Table.Td>
              {edit && (
                <Table.Td>
                  {(!secret.expiresAt || Date.parse(secret.expiresAt) > now) && (
                    <Button
                      variant="subtle"
                      size="compact-xs"
                      aria-label={`Edit secret version ${secret.version}`}
                      onClick={() => edit(secret.version)}
                    >
                      Edit
                    </Button>
                  )}
                </Table.Td>
              )}
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}

function VersionState({ of: { expiresAt, safeToRetire }, now }: { of: Version; now: number }) {
  if (!expiresAt) {
    return (
      <Badge miw="max-content" variant="light" color="teal" c="var(--success)" tt="none">
        Active
      </Badge>
    );
  }
  if (Date.parse(expiresAt) <= now)
    return (
      <Text size="sm" className="quiet">
        Expired <When at={expiresAt} />
      </Text>
    );
  return (
    <Group gap={6}>
      <Text size="sm" c="var(--pending)">
        Expires <When at={expiresAt} />
      </Text>
      {safeToRetire && (
        <Badge miw="max-content" variant="light" color="teal" c="var(--success)" tt="none">
          Safe to retire
        </Badge>
      )}
    </Group>
  );
}
