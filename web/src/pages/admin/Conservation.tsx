// Compares each organization's webhooks in the log with the read models, so that nothing gets lost unnoticed.
import { Anchor, Badge, Table, Text } from '@mantine/core';
import { useInterval } from '@mantine/hooks';
import { useQuery } from 'urql';
import { Link } from 'wouter';

import { graphql, type ResultOf } from '../../api/graphql';
import { count, plural } from '../../format';
import { When } from '../../time';
import { Card } from '../../ui/Card';
import { ErrorCard } from '../../ui/ErrorCard';
import { webhookStatuses } from '../../ui/Status';

const Query = graphql(`
  query Conservation {
    conservation {
      organization { slug name }
      position received succeeded pending processing failed deadLettered duplicates rejected
      difference differences webhookIds checkedAt mismatchSince
    }
  }
`);

type Row = ResultOf<typeof Query>['conservation'][number];

const figures: readonly [name: string, value: (row: Row) => number][] = [
  ['Received', (row) => row.received],
  [webhookStatuses.success.word, (row) => row.succeeded],
  [webhookStatuses.pending.word, (row) => row.pending],
  [webhookStatuses.processing.word, (row) => row.processing],
  [webhookStatuses.failed.word, (row) => row.failed],
  [webhookStatuses.dead.word, (row) => row.deadLettered],
  ['Duplicates', (row) => row.duplicates],
  [webhookStatuses.rejected.word, (row) => row.rejected],
];

/** Number of organizations that are shown; those with differences come first. */
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
      title="Data consistency"
      actions={
        data && (
          <Badge
            variant="light"
            tt="none"
            color={wrong ? 'red' : 'teal'}
            c={wrong ? 'var(--failed)' : 'var(--success)'}
          >
            {wrong ? `${plural(wrong, 'organization')} ${wrong === 1 ? 'differs' : 'differ'}` : 'No differences'}
          </Badge>
        )
      }
    >
      <Text size="sm" className="quiet" mb="xs">
        Every received webhook must have exactly one status. The counts from the log are compared with the read models
        at the same position.
      </Text>
      {error && !data && !fetching && (
        <ErrorCard error={error} again={() => again({ requestPolicy: 'network-only' })} />
      )}
      {rows.length > 0 && (
        <Table.ScrollContainer minWidth={820} type="native" tabIndex={0} role="region" aria-label="Data consistency">
          <Table withRowBorders={false}>
            <Table.Thead>
              <Table.Tr>
                <Table.Th>Organization</Table.Th>
                {figures.map(([name]) => (
                  <Table.Th key={name} ta="right">
                    {name}
                  </Table.Th>
                ))}
                <Table.Th ta="right">Difference</Table.Th>
                <Table.Th>Checked</Table.Th>
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
                  {figures.map(([name, value]) => (
                    <Table.Td key={name} ta="right">
                      {count(value(row))}
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
          {plural(rows.length - SHOWN, 'more organization')}
          {wrong <= SHOWN && ', all without differences'}.
        </Text>
      )}
    </Card>
  );
}
