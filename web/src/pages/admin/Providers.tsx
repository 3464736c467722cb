import { Anchor, Select, Text } from '@mantine/core';
import { IconPlug } from '@tabler/icons-react';
import { Link } from 'wouter';

import { graphql, type ResultOf } from '../../api/graphql';
import { count } from '../../format';
import { When } from '../../time';
import { Active } from '../../ui/Active';
import { ActiveChoice, activeOf } from '../../ui/ActiveChoice';
import { type DataColumn, DataTable } from '../../ui/DataTable';
import { Empty } from '../../ui/Empty';
import { Page } from '../../ui/Page';
import { type ProviderKind, ProviderName, providerKinds, providers as services } from '../../ui/ProviderName';
import { SearchBox } from '../../ui/SearchBox';
import { orderOf } from '../../ui/SortBy';
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

const circuits = { CLOSED: 'Healthy', OPEN: 'Paused', HALF_OPEN: 'Testing recovery' };

type Row = ResultOf<typeof Query>['providers']['nodes'][number];

const columns: readonly DataColumn<Row>[] = [
  {
    head: 'Provider',
    sort: 'PROVIDER_NAME',
    cell: ({ providerName, organization }) => (
      <Anchor
        component={Link}
        href={`/dashboard/${organization.slug}/providers/${services[providerName].slug}`}
        size="sm"
      >
        <ProviderName kind={providerName} />
      </Anchor>
    ),
  },
  {
    head: 'Organization',
    sort: 'ORGANIZATION_NAME',
    cell: ({ organization }) => (
      <Anchor component={Link} href={`/admin/organizations/${organization.slug}`} size="sm" className="foreign">
        {organization.name}
      </Anchor>
    ),
  },
  { head: 'Status', cell: ({ isActive }) => <Active is={isActive} /> },
  {
    head: 'Destination',
    maxWidth: 240,
    cell: ({ destination }) => (
      <Text size="sm" className="cut">
        {destination?.url ?? 'Stored only'}
      </Text>
    ),
  },
  { head: 'Deliveries', cell: ({ destination }) => (destination ? circuits[destination.circuit] : '–') },
  { head: 'Waiting', isNumber: true, cell: ({ destination }) => (destination ? count(destination.waiting) : '–') },
  { head: 'Connected', sort: 'CREATED_AT', cell: ({ createdAt }) => <When at={createdAt} /> },
];

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
            label="Search providers"
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
          activate: 'Their webhooks will be accepted again.',
          deactivate: 'Their webhooks will be rejected with 403. Nothing is deleted, and you can activate them again.',
        }}
        set={async (id, isActive) => Boolean(await set.act({ id, isActive }))}
        done={list.reload}
      />
      <DataTable
        list={list}
        columns={columns}
        minWidth={900}
        select={{
          of: selection,
          label: ({ providerName, organization }) => `${services[providerName].word} of ${organization.name}`,
        }}
        empty={
          <Empty icon={IconPlug} title={q || active || kind ? 'No providers match' : 'No providers yet'}>
            Providers appear here once organizations connect them.
          </Empty>
        }
      />
    </Page>
  );
}
