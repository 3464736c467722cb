// Everything about one webhook: in the drawer over the list, and on a page of its own.
import {
  ActionIcon,
  Button,
  Group,
  Skeleton,
  Stack,
  Table,
  Tabs,
  Text,
  Title,
  Tooltip,
  VisuallyHidden,
} from '@mantine/core';
import { IconEraser, IconLink, IconRotateClockwise, IconTerminal2 } from '@tabler/icons-react';
import { type ReactNode, useState } from 'react';

import { useOrganization } from '../../../session/viewer';
import { useOffer } from '../../../ui/commands';
import { ErrorCard } from '../../../ui/ErrorCard';
import { NotFound } from '../../../ui/NotFound';
import { beginning, visible } from '../../../ui/payload/visible';
import { Status, statusOf } from '../../../ui/Status';
import { useSearch } from '../../../url';
import type { WebhookRow } from '../queries';
import { RetryDialog } from '../RetryDialog';
import { retryable } from '../retry';
import { Attempts } from './Attempts';
import { Compare } from './Compare';
import { CurlDialog } from './CurlDialog';
import { Duplicates } from './Duplicates';
import classes from './detail.module.css';
import { EraseBody } from './EraseBody';
import { Payload } from './Payload';
import type { Webhook } from './queries';
import { Summary } from './Summary';
import { Timeline } from './Timeline';
import { useWebhook } from './useWebhook';

type Props = {
  webhookId: string;
  /** Heading level of the title: 1 on a separate page. */
  order: 1 | 2;
  /** Buttons beside the title: previous, next, close. */
  actions: ReactNode;
  /** Receives a row that an action here changed. */
  onRow?: (row: WebhookRow) => void;
};

export function Detail({ webhookId, order, actions, onRow }: Props) {
  const { slug, id } = useOrganization();
  const { webhook, error, again } = useWebhook(slug, id, webhookId);
  if (webhook) return <Known webhook={webhook} order={order} actions={actions} again={again} onRow={onRow} />;
  return (
    <>
      <Group justify="flex-end" gap={4}>
        {actions}
      </Group>
      {webhook === null ? (
        <NotFound what="Webhook" />
      ) : error ? (
        <ErrorCard error={error} again={again} />
      ) : (
        <Loading order={order} />
      )}
    </>
  );
}

function Loading({ order }: { order: 1 | 2 }) {
  return (
    <Stack gap="sm" role="status" aria-label="Loading">
      <VisuallyHidden>
        <Title order={order}>Webhook</Title>
      </VisuallyHidden>
      <Skeleton height={28} width={260} />
      <Skeleton height={190} />
      <Skeleton height={34} />
      <Skeleton height={300} />
    </Stack>
  );
}

const tabs = ['payload', 'headers', 'attempts', 'timeline', 'compare', 'duplicates'] as const;

function Known({
  webhook,
  order,
  actions,
  again,
  onRow,
}: Omit<Props, 'webhookId'> & { webhook: Webhook; again: () => void }) {
  const { base, canManage } = useOrganization();
  const [search, setSearch] = useSearch();
  const [asking, setAsking] = useState(false);
  const [copying, setCopying] = useState(false);
  const [erasing, setErasing] = useState(false);
  const tab = tabs.find((each) => each === search.tab && (each !== 'duplicates' || webhook.bodyDiffers)) ?? 'payload';
  const able = retryable(webhook) && !webhook.bodyRemoval;
  const link = `${location.origin}${base}/webhooks/${webhook.webhookId}`;
  useOffer([
    { label: 'Retry this webhook', hotkey: 'r', run: () => able && setAsking(true) },
    { label: 'Copy this webhook as curl', run: () => setCopying(true) },
  ]);
  return (
    <Stack gap="md">
      <Group justify="space-between" align="start" gap="xs" wrap="nowrap">
        <Stack gap={2} miw={0}>
          <span aria-live="polite">
            <Status value={statusOf(webhook)} />
          </span>
          <Title order={order} fz="lg" className={classes.title}>
            <bdi>{webhook.eventType ? visible(beginning(webhook.eventType, 200)) : 'No event type'}</bdi>
          </Title>
        </Stack>
        <Group gap={4} wrap="nowrap">
          {actions}
        </Group>
      </Group>
      <Group gap="xs">
        {able && (
          <Button size="xs" leftSection={<IconRotateClockwise size={14} aria-hidden />} onClick={() => setAsking(true)}>
            Retry webhook…
          </Button>
        )}
        <Button
          size="xs"
          variant="default"
          leftSection={<IconTerminal2 size={14} aria-hidden />}
          onClick={() => setCopying(true)}
        >
          Copy as curl…
        </Button>
        <CopyLink value={link} />
        {canManage && !webhook.bodyRemoval && (
          <Tooltip label="Erase body">
            <ActionIcon variant="default" size={30} aria-label="Erase body" onClick={() => setErasing(true)}>
              <IconEraser size={14} />
            </ActionIcon>
          </Tooltip>
        )}
      </Group>
      <Summary of={webhook} />
      <Tabs
        value={tab}
        onChange={(next) => setSearch({ tab: next === 'payload' || !next ? '' : next }, { replace: true })}
        keepMounted={false}
      >
        <Tabs.List className={classes.tabs}>
          <Tabs.Tab value="payload">Payload</Tabs.Tab>
          <Tabs.Tab value="headers">Headers ({webhook.headers.length})</Tabs.Tab>
          <Tabs.Tab value="attempts">Attempts ({webhook.attempts.length})</Tabs.Tab>
          <Tabs.Tab value="timeline">Timeline ({webhook.events.length})</Tabs.Tab>
          <Tabs.Tab value="compare">Compare</Tabs.Tab>
          {webhook.bodyDiffers && <Tabs.Tab value="duplicates">Duplicates</Tabs.Tab>}
        </Tabs.List>
        <Tabs.Panel value="payload" pt="sm">
          <Payload of={webhook} />
        </Tabs.Panel>
        <Tabs.Panel value="headers" pt="sm">
          <Headers of={webhook} />
        </Tabs.Panel>
        <Tabs.Panel value="attempts" pt="sm">
          <Attempts of={webhook} />
        </Tabs.Panel>
        <Tabs.Panel value="timeline" pt="sm">
          <Timeline of={webhook} />
        </Tabs.Panel>
        <Tabs.Panel value="compare" pt="sm">
          <Compare of={webhook} />
        </Tabs.Panel>
        <Tabs.Panel value="duplicates" pt="sm">
          <Duplicates of={webhook} />
        </Tabs.Panel>
      </Tabs>
      <RetryDialog
        target={asking ? { rows: [webhook] } : null}
        close={() => setAsking(false)}
        done={again}
        onRow={onRow}
      />
      <EraseBody opened={erasing} close={() => setErasing(false)} of={webhook} done={again} />
      <CurlDialog opened={copying} close={() => setCopying(false)} of={webhook} />
    </Stack>
  );
}

function CopyLink({ value }: { value: string }) {
  const [copied, setCopied] = useState(false);
  return (
    <Tooltip label={copied ? 'Copied' : 'Copy link to this webhook'}>
      <ActionIcon
        variant="default"
        size={30}
        aria-label={copied ? 'Copied' : 'Copy link to this webhook'}
        onClick={() => {
          void navigator.clipboard?.writeText(value).then(() => setCopied(true));
          setTimeout(() => setCopied(false), 1500);
        }}
      >
        <IconLink size={14} />
      </ActionIcon>
    </Tooltip>
  );
}

function Headers({ of: { headers } }: { of: Webhook }) {
  if (headers.length === 0)
    return (
      <Text size="sm" className="quiet">
        The headers are no longer kept.
      </Text>
    );
  return (
    <Table className={classes.headers} withRowBorders>
      <Table.Thead className={classes.unseen}>
        <Table.Tr>
          <Table.Th>Name</Table.Th>
          <Table.Th>Value</Table.Th>
        </Table.Tr>
      </Table.Thead>
      <Table.Tbody>
        {headers.map(({ name, value }, index) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: headers can have the same name, and never change
          <Table.Tr key={index}>
            <Table.Td className="mono quiet">{visible(beginning(name, 100))}</Table.Td>
            <Table.Td className="mono foreign">{visible(beginning(value, 4_000))}</Table.Td>
          </Table.Tr>
        ))}
      </Table.Tbody>
    </Table>
  );
}
