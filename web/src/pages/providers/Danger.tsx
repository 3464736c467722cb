import { Button, Text } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { useLocation } from 'wouter';

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
        label={isActive ? 'Deactivate' : 'Activate'}
        danger={isActive}
        busy={set.busy}
        error={set.error}
        run={() =>
          void set
            .act(
              { input: { id: provider.id, isActive: !isActive } },
              `${word} is ${isActive ? 'deactivated' : 'active'}`,
            )
            .then((done) => {
              if (done) close();
            })
        }
      >
        {isActive
          ? 'Its webhooks are refused with 403 “Provider disabled” from now on, and they are not kept: some services send them again for days, others never do. What was accepted before is still processed.'
          : 'Its webhooks are accepted again from now on. What was refused meanwhile is not here; some services can send it again.'}
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
      title="Delete this provider"
      actions={
        <Button variant="default" size="compact-xs" c="var(--failed)" onClick={open}>
          Delete
        </Button>
      }
    >
      <Text size="sm" className="quiet">
        Its address answers 404 then, and its secrets and its destination are forgotten. Its webhooks and their history
        stay.
      </Text>
      <Confirm
        opened={opened}
        close={close}
        title={`Delete ${word}`}
        label="Delete"
        danger
        typed={slug}
        busy={remove.busy}
        error={remove.error}
        run={() =>
          void remove.act({ input: { id: provider.id } }, `${word} is deleted`).then((done) => {
            if (done) go(`${base}/providers`);
          })
        }
      >
        Webhooks of {word} are answered with 404 from now on. Its secrets and its destination are forgotten
        {provider.destination && provider.destination.waiting > 0
          ? '; those that wait for the destination are recorded and not forwarded'
          : ''}
        . To have it back, it is connected anew.
      </Confirm>
    </Card>
  );
}
