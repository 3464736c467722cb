import { Anchor, Select, Table, Text } from '@mantine/core';
import { IconPlug } from '@tabler/icons-react';
import { Link } from 'wouter';

import { graphql } from '../../api/graphql';
import { count } from '../../format';
import { When } from '../../time';
import { Active } from '../../ui/Active';
import { ActiveChoice, activeOf } from '../../ui/ActiveChoice';
import { Card } from '../../ui/Card';
import { ChooseAll, ChooseRow } from '../../ui/ChooseRows';
import { Empty } from '../../ui/Empty';
import { ListEnd } from '../../ui/ListEnd';
import { Page } from '../../ui/Page';
import { type ProviderKind, ProviderName, providerKinds, providers as services } from '../../ui/ProviderName';
import { SearchBox } from '../../ui/SearchBox';
import { orderOf, SortBy } from '../../ui/SortBy';
import { useAct } from '../../ui/useAct';
import { useList } from '../../ui/useList';
import { useSelection } from '../../ui/useSelection';
import { useSearch } from '../../url';
import { SetActive } from './SetActive';

const Query = graphql(`
  query AdminProviders($search: String, $providerName: ProviderName, $isActive: Boolean, $orderBy: ProviderOrder, $after: String) {
    providers(first: 50, search: $search, providerName: $providerName, isActive: $isActive, orderBy: $orderBy, after: $after) {
      nodes { id providerName isActive hasSecret createdAt organization { id slug name } destination { url circuit waiting } }
      pageInfo { hasNextPage endCursor }
    }
  }
`);

const SetProviderActive = graphql(`
  mutation AdminSetProviderActive($id: ID!, $isActive: Boolean!) {
    setProviderActive(input: { id: $id, isActive: $isActive }) { provider { id isActive } }
  }
`);

const circuits = { CLOSED: 'Closed', OPEN: 'Open: nothing is sent', HALF_OPEN: 'Half open: trying' };

/** The connected providers of every organization. */
export default function Providers() {
  const [{ q, active, service, sort }, change] = useSearch();
  const kind = providerKinds.find((each) => services[each].slug === service) ?? null;
  const orderBy = orderOf(sort, ['CREATED_AT', 'PROVIDER_NAME', 'ORGANIZATION_NAME']);
  const list = useList(
    Query,
    { search: q ?? null, providerName: kind, isActive: activeOf(active), orderBy },
    (data) => data.providers,
  );
  const selection = useSelection(list.rows.map(({ id }) => id));
  const set = useAct(SetProviderActive);
  return (
    <Page
      title="All providers"
      actions={
        <>
          <SearchBox
            label="Organization or destination"
            value={q ?? ''}
            onChange={(next) => change({ q: next }, { replace: true })}
          />
          <Select
            size="xs"
            w={170}
            aria-label="Service"
            placeholder="Any service"
            clearable
            value={kind}
            data={providerKinds.map((value) => ({ value, label: services[value].word }))}
            onChange={(next) => change({ service: next ? services[next as ProviderKind].slug : undefined })}
          />
          <ActiveChoice />
        </>
      }
    >
      <SetActive
        chosen={selection.chosen}
        clear={selection.clear}
        noun="provider"
        activate="Activate"
        means={{
          activate: 'Their webhooks are accepted again.',
          deactivate: 'Their webhooks are refused with 403 from now on. Nothing is deleted.',
        }}
        set={async (id, isActive) => Boolean(await set.act({ id, isActive }))}
        done={list.reload}
      />
      {!list.isFirst && list.rows.length === 0 ? (
        <Empty icon={IconPlug} title="No provider matches">
          Providers that organizations connect are listed here.
        </Empty>
      ) : (
        <Card p={0}>
          <Table.ScrollContainer minWidth={900}>
            <Table highlightOnHover>
              <Table.Thead>
                <Table.Tr>
                  <Table.Th w={36}>
                    <ChooseAll of={selection} shown={list.rows.length} />
                  </Table.Th>
                  <SortBy field="PROVIDER_NAME">Provider</SortBy>
                  <SortBy field="ORGANIZATION_NAME">Organization</SortBy>
                  <Table.Th>State</Table.Th>
                  <Table.Th>Destination</Table.Th>
                  <Table.Th>Circuit</Table.Th>
                  <Table.Th ta="right">Waiting</Table.Th>
                  <SortBy field="CREATED_AT">Connected</SortBy>
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {list.rows.map((row) => (
                  <Table.Tr key={row.id} bg={selection.chosen.has(row.id) ? 'var(--chosen)' : undefined}>
                    <Table.Td>
                      <ChooseRow
                        of={selection}
                        id={row.id}
                        label={`${services[row.providerName].word} of ${row.organization.name}`}
                      />
                    </Table.Td>
                    <Table.Td>
                      <Anchor
                        component={Link}
                        href={`/dashboard/${row.organization.slug}/providers/${services[row.providerName].slug}`}
                        size="sm"
                      >
                        <ProviderName kind={row.providerName} />
                      </Anchor>
                    </Table.Td>
                    <Table.Td>
                      <Anchor
                        component={Link}
                        href={`/admin/organizations/${row.organization.slug}`}
                        size="sm"
                        className="foreign"
                      >
                        {row.organization.name}
                      </Anchor>
                    </Table.Td>
                    <Table.Td>
                      <Active is={row.isActive} />
                    </Table.Td>
                    <Table.Td maw={240}>
                      <Text size="sm" className="cut">
                        {row.destination?.url ?? 'recorded only'}
                      </Text>
                    </Table.Td>
                    <Table.Td>{row.destination ? circuits[row.destination.circuit] : '–'}</Table.Td>
                    <Table.Td ta="right">{row.destination ? count(row.destination.waiting) : '–'}</Table.Td>
                    <Table.Td>
                      <When at={row.createdAt} />
                    </Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
          <ListEnd of={list} />
        </Card>
      )}
    </Page>
  );
}
