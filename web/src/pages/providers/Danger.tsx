import { Button, Text } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { useLocation } from 'wouter';
import { plural } from '../../format';
import { useOrganization } from '../../session/viewer';
import { Card } from '../../ui/Card';
import { Confirm } from '../../ui/Confirm';
import { providers as services } from '../../ui/ProviderName';
import { useAct } from '../../ui/useAct';
import { Delete, type Provider, SetActive } from './queries';

/** Stops and starts the webhooks of a provider. */
export function ActiveSwitch({ provider }: { provider: Provider }) {
  const [opened, { open, close }] = useDisclosure();
  const set = useAct(SetActive, { quiet: true });
  const { word } = services[provider.providerName];
  const { isActive } = provider;
  return (
    <>
      <Button variant="default" size="xs" c={isActive ? 'var(--failed)' : undefined} onClick={open}>
        {isActive ? 'Deactivate' : 'Activate'}
      </Button>
      <Confirm
        opened={opened}
        close={close}
        title={`${isActive ? 'Deactivate' : 'Activate'} ${word}`}
        label={`${isActive ? 'Deactivate' : 'Activate'} ${word}`}
        danger={isActive}
        busy={set.busy}
        error={set.error}
        run={() =>
          void set
            .act(
              { input: { id: provider.id, isActive: !isActive } },
              `${word} ${isActive ? 'deactivated' : 'activated'}`,
            )
            .then((done) => {
              if (done) close();
            })
        }
      >
        {isActive
          ? `Webhooks from ${word} will be rejected with 403 (Provider disabled). Some services retry for days; others never do. Webhooks already accepted are still processed. You can activate ${word} again at any time.`
          : `Webhooks from ${word} will be accepted again. Webhooks rejected in the meantime aren't recovered, but some services can resend them.`}
      </Confirm>
    </>
  );
}

export function DeleteProvider({ provider }: { provider: Provider }) {
  const { base } = useOrganization();
  const [, go] = useLocation();
  const [opened, { open, close }] = useDisclosure();
  const remove = useAct(Delete, { quiet: true });
  const { word, slug } = services[provider.providerName];
  return (
    <Card
      title="Delete provider"
      actions={
        <Button variant="default" size="compact-xs" c="var(--failed)" onClick={open}>
          Delete
        </Button>
      }
    >
      <Text size="sm" className="quiet">
        The webhook URL stops working, and the secrets and destination are deleted. Received webhooks and their history
        are kept.
      </Text>
      <Confirm
        opened={opened}
        close={close}
        title={`Delete ${word}`}
        label={`Delete ${word}`}
        danger
        typed={slug}
        busy={remove.busy}
        error={remove.error}
        run={() =>
          void remove.act({ input: { id: provider.id } }, `${word} deleted`).then((done) => {
            if (done) go(`${base}/providers`);
          })
        }
      >
        Webhooks from {word} will get a 404 response, and its secrets and destination are deleted.{' '}
        {provider.destination &&
          provider.destination.waiting > 0 &&
          `${plural(provider.destination.waiting, 'webhook')} waiting for the destination will be held. `}
        This can't be undone, but you can connect {word} again.
      </Confirm>
    </Card>
  );
}
