// Whether anything got lost between the log and what people see: each organization's webhooks by both.
import { Anchor, Badge, Table, Text } from '@mantine/core';
import { useInterval } from '@mantine/hooks';
import { useQuery } from 'urql';
import { Link } from 'wouter';

import { graphql } from '../../api/graphql';
import { count } from '../../format';
import { When } from '../../time';
import { Card } from '../../ui/Card';
import { ErrorCard } from '../../ui/ErrorCard';

const Query = graphql(`
  query Conservation {
    conservation {
      organization { slug name }
      position received succeeded pending processing failed deadLettered duplicates rejected
      difference differences webhookIds checkedAt mismatchSince
    }
  }
`);

/** Organizations that are shown; those of whom something differs come first. */
const SHOWN = 20;

export function Conservation() {
  const [{ data, error, fetching }, again] = useQuery({ query: Query });
  useInterval(() => document.visibilityState === 'visible' && again({ requestPolicy: 'network-only' }), 10_000, {
    autoInvoke: true,
  });
  const rows = data?.conservation ?? [];
  const wrong = rows.filter(({ mismatchSince }) => mismatchSince).length;
  return (
    <Card
      title="Conservation"
      actions={
        data && (
          <Badge
            variant="light"
            tt="none"
            color={wrong ? 'red' : 'teal'}
            c={wrong ? 'var(--failed)' : 'var(--success)'}
          >
            {wrong ? `${count(wrong)} differ` : 'Nothing is missing'}
          </Badge>
        )
      }
    >
      <Text size="sm" className="quiet" mb="xs">
        What was received is pending, processing, succeeded, failed or a dead letter; counted from the log, and compared
        with what people see at the same place of it.
      </Text>
      {error && !data && !fetching && (
        <ErrorCard error={error} again={() => again({ requestPolicy: 'network-only' })} />
      )}
      {rows.length > 0 && (
        <Table.ScrollContainer minWidth={820} type="native" tabIndex={0} role="region" aria-label="Conservation">
          <Table withRowBorders={false}>
            <Table.Thead>
              <Table.Tr>
                <Table.Th>Organization</Table.Th>
                {[
                  'Received',
                  'Succeeded',
                  'Pending',
                  'Processing',
                  'Failed',
                  'Dead letters',
                  'Duplicates',
                  'Rejected',
                  'Difference',
                ].map((name) => (
                  <Table.Th key={name} ta="right">
                    {name}
                  </Table.Th>
                ))}
                <Table.Th>Compared</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {rows.slice(0, SHOWN).map((row) => (
                <Table.Tr key={row.organization?.slug ?? row.position}>
                  <Table.Td>
                    {row.organization && (
                      <Anchor
                        component={Link}
                        href={`/admin/organizations/${row.organization.slug}`}
                        size="sm"
                        className="foreign"
                      >
                        {row.organization.name}
                      </Anchor>
                    )}
                    {row.differences.map((difference) => (
                      <Text key={difference} size="xs" c="var(--failed)">
                        {difference}
                      </Text>
                    ))}
                    {row.webhookIds.map((id) => (
                      <Text key={id} size="xs" className="mono">
                        {row.organization ? (
                          <Link href={`/dashboard/${row.organization.slug}/webhooks/${id}`}>{id}</Link>
                        ) : (
                          id
                        )}
                      </Text>
                    ))}
                  </Table.Td>
                  {[
                    row.received,
                    row.succeeded,
                    row.pending,
                    row.processing,
                    row.failed,
                    row.deadLettered,
                    row.duplicates,
                    row.rejected,
                  ].map((value, column) => (
                    <Table.Td key={column} ta="right">
                      {count(value)}
                    </Table.Td>
                  ))}
                  <Table.Td
                    ta="right"
                    c={row.difference ? 'var(--failed)' : undefined}
                    fw={row.difference ? 600 : undefined}
                  >
                    {count(row.difference)}
                  </Table.Td>
                  <Table.Td>
                    <When at={row.checkedAt} />
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
      {rows.length > SHOWN && (
        <Text size="xs" className="quiet" mt="xs">
          {count(rows.length - SHOWN)} more, all as they should be{wrong > SHOWN ? ' but some' : ''}.
        </Text>
      )}
    </Card>
  );
}
