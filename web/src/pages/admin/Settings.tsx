import { Badge, Group, Stack, Table, Text } from '@mantine/core';
import { useQuery } from 'urql';

import { graphql } from '../../api/graphql';
import { Card } from '../../ui/Card';
import { ErrorCard } from '../../ui/ErrorCard';
import { Page } from '../../ui/Page';
import { PageLoading } from '../../ui/PageLoading';
import { SearchBox } from '../../ui/SearchBox';
import { useSearch } from '../../url';

const Query = graphql(`
  query PlatformSettings {
    system { settings { name help value default isSecret isSet } }
  }
`);

/** The current settings of the node that answers. They cannot be changed here. */
export default function Settings() {
  const [{ q = '' }, change] = useSearch();
  const [{ data, error, fetching }, again] = useQuery({ query: Query });
  const settings = data?.system.settings.filter(({ name, help }) =>
    `${name} ${help}`.toLowerCase().includes(q.toLowerCase()),
  );
  return (
    <Page
      title="Settings"
      lead="Values on this node. To change one, set it in the environment or the config file, then restart."
      actions={
        <SearchBox label="Search settings" value={q} onChange={(next) => change({ q: next }, { replace: true })} />
      }
    >
      {error && !data && !fetching && (
        <ErrorCard error={error} again={() => again({ requestPolicy: 'network-only' })} />
      )}
      {!data && !error && <PageLoading />}
      {settings && (
        <Card p={0}>
          <Table.ScrollContainer minWidth={720} type="native" tabIndex={0} role="region" aria-label="Settings">
            <Table>
              <Table.Thead>
                <Table.Tr>
                  <Table.Th>Setting</Table.Th>
                  <Table.Th>Value</Table.Th>
                  <Table.Th>Default</Table.Th>
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {settings.map((setting) => (
                  <Table.Tr key={setting.name}>
                    <Table.Td maw={520}>
                      <Stack gap={0}>
                        <Text size="sm" className="mono">
                          {setting.name}
                        </Text>
                        <Text size="xs" className="quiet">
                          <Help text={setting.help} />
                        </Text>
                      </Stack>
                    </Table.Td>
                    <Table.Td maw={320}>
                      {setting.isSecret ? (
                        <Badge variant="light" color="gray" tt="none" c="var(--quiet)">
                          {setting.isSet ? 'Secret (set)' : 'Secret (not set)'}
                        </Badge>
                      ) : (
                        <Group gap="xs">
                          <Text size="sm" className="mono foreign">
                            {setting.value ?? '–'}
                          </Text>
                          {setting.value !== null && setting.value !== setting.default && (
                            <Badge
                              variant="light"
                              tt="none"
                              size="sm"
                              c="light-dark(var(--mantine-color-accent-8), var(--mantine-color-accent-2))"
                            >
                              Changed
                            </Badge>
                          )}
                        </Group>
                      )}
                    </Table.Td>
                    <Table.Td>
                      <Text size="sm" className="mono quiet">
                        {setting.default ?? '–'}
                      </Text>
                    </Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
        </Card>
      )}
    </Page>
  );
}

/** The help of a command line, with its code between backticks. */
function Help({ text }: { text: string }) {
  const parts = text.split('`').map((part, index) => ({ part, isCode: index % 2 === 1, key: `${index} ${part}` }));
  return (
    <>
      {parts.map(({ part, isCode, key }) => (isCode ? <code key={key}>{part}</code> : part))}
      {!/[.!?]$/.test(text) && '.'}
    </>
  );
}
