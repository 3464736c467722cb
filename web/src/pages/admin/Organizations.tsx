import { Anchor, Button, Modal, Text } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { IconBuilding, IconPlus } from '@tabler/icons-react';
import { Link, useLocation } from 'wouter';

import { graphql, type ResultOf } from '../../api/graphql';
import { count } from '../../format';
import { When } from '../../time';
import { Active } from '../../ui/Active';
import { ActiveChoice, activeOf } from '../../ui/ActiveChoice';
import { type DataColumn, DataTable } from '../../ui/DataTable';
import { Empty } from '../../ui/Empty';
import { Page } from '../../ui/Page';
import { SearchBox } from '../../ui/SearchBox';
import { orderOf } from '../../ui/SortBy';
import { useAct } from '../../ui/useAct';
import { useList } from '../../ui/useList';
import { useSelection } from '../../ui/useSelection';
import { useSearch } from '../../url';
import { OrganizationForm } from './OrganizationForm';
import { plans } from './plans';
import { SetActive } from './SetActive';

const Query = graphql(`
  query AdminOrganizations($search: String, $isActive: Boolean, $orderBy: OrganizationOrder, $after: String) {
    organizations(first: 50, search: $search, isActive: $isActive, orderBy: $orderBy, after: $after) {
      nodes { id slug name plan webhookLimit isActive webhookCount createdAt }
      pageInfo { hasNextPage endCursor }
    }
  }
`);

const Create = graphql(`
  mutation CreateOrganization($input: CreateOrganizationInput!) {
    createOrganization(input: $input) { organization { id slug } }
  }
`);

export const SetOrganizationActive = graphql(`
  mutation SetOrganizationActive($id: ID!, $isActive: Boolean!) {
    setOrganizationActive(input: { id: $id, isActive: $isActive }) { organization { id isActive } }
  }
`);

type Row = ResultOf<typeof Query>['organizations']['nodes'][number];

const columns: readonly DataColumn<Row>[] = [
  {
    head: 'Name',
    sort: 'NAME',
    cell: ({ name, slug }) => (
      <>
        <Anchor component={Link} href={`/admin/organizations/${slug}`} size="sm" fw={500} className="foreign">
          {name}
        </Anchor>
        <Text size="xs" className="quiet mono">
          {slug}
        </Text>
      </>
    ),
  },
  { head: 'Status', cell: ({ isActive }) => <Active is={isActive} /> },
  { head: 'Plan', cell: ({ plan }) => plans[plan].word },
  {
    head: 'Monthly limit',
    isNumber: true,
    cell: ({ webhookLimit }) => (webhookLimit === null ? 'Unlimited' : count(webhookLimit)),
  },
  { head: 'Webhooks', isNumber: true, cell: ({ webhookCount }) => count(webhookCount) },
  { head: 'Created', sort: 'CREATED_AT', cell: ({ createdAt }) => <When at={createdAt} /> },
];

export default function Organizations() {
  const [{ q, active, sort }, change] = useSearch();
  const [, go] = useLocation();
  const variables = { search: q ?? null, isActive: activeOf(active), orderBy: orderOf(sort, ['CREATED_AT', 'NAME']) };
  const list = useList(Query, variables, (data) => data.organizations);
  const selection = useSelection(list.rows.map(({ id }) => id));
  const [making, { open, close }] = useDisclosure();
  const create = useAct(Create);
  const set = useAct(SetOrganizationActive);

  return (
    <Page
      title="Organizations"
      actions={
        <>
          <SearchBox
            label="Search by name or slug"
            value={q ?? ''}
            onChange={(next) => change({ q: next }, { replace: true })}
          />
          <ActiveChoice />
          <Button size="xs" leftSection={<IconPlus size={14} />} onClick={open}>
            New organization
          </Button>
        </>
      }
    >
      <SetActive
        chosen={selection.chosen}
        clear={selection.clear}
        noun="organization"
        activate="Reactivate"
        means={{
          activate: 'Their webhooks will be accepted again, and their users can sign in.',
          deactivate:
            'Their webhooks will be rejected, and their users are signed out immediately. Nothing is deleted, and you can reactivate them later.',
        }}
        set={async (id, isActive) => Boolean(await set.act({ id, isActive }))}
        done={list.reload}
      />
      <DataTable
        list={list}
        columns={columns}
        minWidth={760}
        select={{ of: selection, label: ({ name }) => name }}
        empty={
          <Empty
            icon={IconBuilding}
            title={q || active ? 'No organizations match' : 'No organizations yet'}
            action={<Button onClick={open}>New organization</Button>}
          >
            An organization is a customer, with its own providers, webhooks, and users.
          </Empty>
        }
      />
      <Modal opened={making} onClose={close} title="New organization">
        <OrganizationForm
          label="Create organization"
          busy={create.busy}
          cancel={close}
          submit={({ name, slug, plan, webhookLimit }) =>
            void create.act({ input: { name, slug, plan, webhookLimit } }, 'Organization created').then((made) => {
              if (made) go(`/admin/organizations/${made.createOrganization.organization.slug}`);
            })
          }
        />
      </Modal>
    </Page>
  );
}
