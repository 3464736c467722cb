import { Anchor, Badge, Group, Skeleton, Stack, Table, Text } from '@mantine/core';
import { Link } from 'wouter';

import { useOrganization } from '../../session/viewer';
import { When } from '../../time';
import { Status, standing } from '../../ui/Status';
import type { Row } from './queries';

type Props = {
  rows: readonly Row[];
  isFirst: boolean;
  /** Those that were sent from here. */
  tests?: ReadonlySet<string>;
  /** What is said where there is none. */
  empty: string;
};

/** A few webhooks, newest first; they change as one looks. */
export function Recent({ rows, isFirst, tests, empty }: Props) {
  const { base } = useOrganization();
  if (isFirst) {
    return (
      <Stack gap="xs" role="status" aria-label="Loading">
        {Array.from({ length: 5 }, (_, row) => (
          <Skeleton key={row} height={30} />
        ))}
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
            <Table.Th>Type</Table.Th>
            <Table.Th>Received</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {rows.map((row) => (
            <Table.Tr key={row.id}>
              <Table.Td w={120}>
                <Status value={standing(row)} />
              </Table.Td>
              <Table.Td>
                <Group gap={6} wrap="nowrap">
                  <Anchor
                    component={Link}
                    href={`${base}/webhooks/${row.webhookId}`}
                    size="sm"
                    className="mono foreign"
                  >
                    {row.eventType ?? 'no type'}
                  </Anchor>
                  {tests?.has(row.webhookId) && (
                    <Badge size="xs" variant="light" color="gray" tt="none">
                      test
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
