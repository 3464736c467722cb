import { Anchor, Badge, Group, Stack, Table, Text } from '@mantine/core';
import { Link } from 'wouter';

import { useOrganization } from '../../session/viewer';
import { When } from '../../time';
import { Skeletons } from '../../ui/Skeletons';
import { Status, statusOf } from '../../ui/Status';
import type { Row } from './queries';

type Props = {
  rows: readonly Row[];
  isFirst: boolean;
  /** Webhooks that were sent from this page. */
  tests?: ReadonlySet<string>;
  /** Shown if there are none. */
  empty: string;
};

/** A few webhooks, newest first, kept up to date. */
export function Recent({ rows, isFirst, tests, empty }: Props) {
  const { base } = useOrganization();
  if (isFirst) {
    return (
      <Stack gap="xs" role="status" aria-label="Loading">
        <Skeletons rows={5} height={30} />
      </Stack>
    );
  }
  if (rows.length === 0)
    return (
      <Text size="sm" className="quiet">
        {empty}
      </Text>
    );
  return (
    <Table.ScrollContainer minWidth={320}>
      <Table verticalSpacing={6} highlightOnHover>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Status</Table.Th>
            <Table.Th>Event type</Table.Th>
            <Table.Th>Received</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {rows.map((row) => (
            <Table.Tr key={row.id}>
              <Table.Td w={120}>
                <Status value={statusOf(row)} />
              </Table.Td>
              <Table.Td>
                <Group gap={6} wrap="nowrap">
                  <Anchor
                    component={Link}
                    href={`${base}/webhooks/${row.webhookId}`}
                    size="sm"
                    className="mono foreign"
                  >
                    {row.eventType ?? 'No event type'}
                  </Anchor>
                  {tests?.has(row.webhookId) && (
                    <Badge size="xs" variant="light" color="gray" tt="none">
                      Test
                    </Badge>
                  )}
                </Group>
                {row.errorMessage && (
                  <Text size="xs" className="quiet foreign" lineClamp={2}>
                    {row.errorMessage}
                  </Text>
                )}
              </Table.Td>
              <Table.Td w={96}>
                <When at={row.receivedAt} />
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}
