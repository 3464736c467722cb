import { Anchor, Badge, Progress, SimpleGrid, Stack, Table, Text } from '@mantine/core';
import { useInterval } from '@mantine/hooks';
import type { ReactNode } from 'react';
import { useQuery } from 'urql';
import { Link } from 'wouter';

import { graphql, type ResultOf } from '../../api/graphql';
import { bytes, compact, count, duration, plural } from '../../format';
import { When } from '../../time';
import { Card } from '../../ui/Card';
import { ErrorCard } from '../../ui/ErrorCard';
import { Page } from '../../ui/Page';
import { PageLoading } from '../../ui/PageLoading';
import { ProviderName, providers as services } from '../../ui/ProviderName';
import { Conservation } from './Conservation';

const Query = graphql(`
  query Health {
    system {
      followers { name lag stoppedBy partitions { partition position head stoppedBy } }
      deliveries { waiting running overdueSince nodes }
      openCircuits { circuit { node state failures openedAt probeAt changedAt } provider { id providerName organization { slug name } destination { url } } }
      database { version size connections maxConnections events }
      node { version startedAt appendWaitMs clockDifferenceMs }
    }
  }
`);

type System = ResultOf<typeof Query>['system'];

/** Number of events that a healthy follower may be behind: followers step back under load. */
const FINE = 10_000;

/** The platform's health, every 5 seconds. */
export default function Health() {
  const [{ data, error, fetching }, again] = useQuery({ query: Query });
  useInterval(() => document.visibilityState === 'visible' && again({ requestPolicy: 'network-only' }), 5000, {
    autoInvoke: true,
  });
  const system = data?.system;
  return (
    <Page title="Health" lead="Refreshes every 5 seconds">
      {error && !fetching && <ErrorCard error={error} again={() => again({ requestPolicy: 'network-only' })} />}
      {!system && !error && <PageLoading />}
      {system && (
        <Stack gap="md">
          <SimpleGrid cols={{ base: 2, md: 4 }} spacing="sm">
            <Figure label="Log size" value={compact(system.database.events)} detail="events" />
            <Figure
              label="Write latency"
              value={duration(system.node.appendWaitMs)}
              detail="average wait for the log writer"
            />
            <Figure
              label="Deliveries"
              value={count(system.deliveries.waiting)}
              detail={
                <>
                  waiting, {count(system.deliveries.running)} in progress on {plural(system.deliveries.nodes, 'node')}
                  {system.deliveries.overdueSince && (
                    <>
                      ; oldest overdue <When at={system.deliveries.overdueSince} size="xs" />
                    </>
                  )}
                </>
              }
            />
            <Figure
              label="Database"
              value={bytes(system.database.size)}
              detail={`PostgreSQL ${system.database.version.split(' ')[0] ?? ''}, ${system.database.connections} of ${system.database.maxConnections} connections`}
            />
          </SimpleGrid>
          <Followers of={system.followers} />
          <Circuits of={system.openCircuits} />
          <Conservation />
          <Text size="xs" className="quiet">
            Version {system.node.version}, started <When at={system.node.startedAt} size="xs" />
            {typeof system.node.clockDifferenceMs === 'number' && `, clock ${clock(system.node.clockDifferenceMs)}`}
          </Text>
        </Stack>
      )}
    </Page>
  );
}

/** The difference between two clocks, from milliseconds ahead. */
function clock(ahead: number): string {
  if (Math.abs(ahead) < 100) return 'in sync with the database';
  return `${(Math.abs(ahead) / 1000).toFixed(1)} s ${ahead > 0 ? 'ahead of' : 'behind'} the database`;
}

function Figure({ label, value, detail }: { label: string; value: string; detail: ReactNode }) {
  return (
    <Card>
      <Text size="xs" className="quiet">
        {label}
      </Text>
      <Text fz={22} fw={600}>
        {value}
      </Text>
      <Text size="xs" className="quiet" component="div">
        {detail}
      </Text>
    </Card>
  );
}

function Followers({ of }: { of: System['followers'] }) {
  return (
    <Card title="Read models">
      <Table.ScrollContainer minWidth={560} type="native" tabIndex={0} role="region" aria-label="Read models">
        <Table withRowBorders={false}>
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Name</Table.Th>
              <Table.Th>Status</Table.Th>
              <Table.Th ta="right">Events behind</Table.Th>
              <Table.Th w="40%">Partitions</Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {of.map((follower) => (
              <Table.Tr key={follower.name}>
                <Table.Td className="mono">{follower.name}</Table.Td>
                <Table.Td>
                  {follower.stoppedBy ? (
                    <Badge variant="light" color="red" tt="none" c="var(--failed)" title={follower.stoppedBy}>
                      Stopped
                    </Badge>
                  ) : follower.lag > FINE ? (
                    <Badge variant="light" color="yellow" tt="none" c="var(--pending)">
                      Catching up
                    </Badge>
                  ) : (
                    <Badge variant="light" color="teal" tt="none" c="var(--success)">
                      Healthy
                    </Badge>
                  )}
                  {follower.stoppedBy && (
                    <Text size="xs" className="foreign" mt={4}>
                      {follower.stoppedBy}
                    </Text>
                  )}
                </Table.Td>
                <Table.Td ta="right">{count(follower.lag)}</Table.Td>
                <Table.Td>
                  <Progress.Root size="lg" aria-label={`Progress of ${follower.name}`}>
                    {follower.partitions.map(({ partition, position, head, stoppedBy }) => (
                      <Progress.Section
                        key={partition}
                        value={100 / follower.partitions.length}
                        color={stoppedBy ? 'red' : head - position > FINE / 16 ? 'yellow' : 'teal'}
                        title={`Partition ${partition}: ${count(position)} of ${count(head)}`}
                        withAria={false}
                      />
                    ))}
                  </Progress.Root>
                </Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
    </Card>
  );
}

function Circuits({ of }: { of: System['openCircuits'] }) {
  return (
    <Card title="Paused destinations">
      {of.length === 0 && (
        <Text size="sm" className="quiet">
          None: all destinations are active.
        </Text>
      )}
      {of.length > 0 && (
        <Table.ScrollContainer minWidth={640} type="native" tabIndex={0} role="region" aria-label="Paused destinations">
          <Table withRowBorders={false}>
            <Table.Tbody>
              {of.map(({ circuit, provider }) => (
                <Table.Tr key={`${circuit.node} ${provider?.id}`}>
                  <Table.Td>
                    {provider && (
                      <Anchor
                        component={Link}
                        size="sm"
                        href={`/dashboard/${provider.organization.slug}/providers/${services[provider.providerName].slug}`}
                      >
                        <ProviderName kind={provider.providerName} />
                      </Anchor>
                    )}
                  </Table.Td>
                  <Table.Td className="foreign">{provider?.organization.name}</Table.Td>
                  <Table.Td className="foreign">{provider?.destination?.url}</Table.Td>
                  <Table.Td>{circuit.state === 'OPEN' ? 'Paused' : 'Testing recovery'}</Table.Td>
                  <Table.Td>{plural(circuit.failures, 'consecutive failure')}</Table.Td>
                  <Table.Td>
                    Next attempt <When at={circuit.probeAt} />
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
    </Card>
  );
}
