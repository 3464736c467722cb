import { Anchor, Button, Modal, Table, Text } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { IconBuilding, IconPlus } from '@tabler/icons-react';
import { Link, useLocation } from 'wouter';

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
import { SearchBox } from '../../ui/SearchBox';
import { orderOf, SortBy } from '../../ui/SortBy';
import { useAct } from '../../ui/useAct';
import { useList } from '../../ui/useList';
import { useSelection } from '../../ui/useSelection';
import { useSearch } from '../../url';
import { OrganizationForm } from './OrganizationForm';
import { limitWord, plans } from './plans';
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
          <SearchBox label="Name or slug" value={q ?? ''} onChange={(next) => change({ q: next }, { replace: true })} />
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
          activate: 'Their webhooks are accepted again, and their people can sign in.',
          deactivate:
            'Their webhooks are refused from now on, and the sessions of their people end at once. Nothing is deleted.',
        }}
        set={async (id, isActive) => Boolean(await set.act({ id, isActive }))}
        done={list.reload}
      />
      {!list.isFirst && list.rows.length === 0 ? (
        <Empty
          icon={IconBuilding}
          title={q || active ? 'No organization matches' : 'No organization yet'}
          action={<Button onClick={open}>New organization</Button>}
        >
          An organization is a customer: its providers, its webhooks and its people are apart from everybody else's.
        </Empty>
      ) : (
        <Card p={0}>
          <Table.ScrollContainer minWidth={760}>
            <Table highlightOnHover>
              <Table.Thead>
                <Table.Tr>
                  <Table.Th w={36}>
                    <ChooseAll of={selection} shown={list.rows.length} />
                  </Table.Th>
                  <SortBy field="NAME">Name</SortBy>
                  <Table.Th>State</Table.Th>
                  <Table.Th>Plan</Table.Th>
                  <Table.Th>Limit</Table.Th>
                  <Table.Th ta="right">Webhooks</Table.Th>
                  <SortBy field="CREATED_AT">Created</SortBy>
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {list.rows.map((row) => (
                  <Table.Tr key={row.id} bg={selection.chosen.has(row.id) ? 'var(--chosen)' : undefined}>
                    <Table.Td>
                      <ChooseRow of={selection} id={row.id} label={row.name} />
                    </Table.Td>
                    <Table.Td>
                      <Anchor
                        component={Link}
                        href={`/admin/organizations/${row.slug}`}
                        size="sm"
                        fw={500}
                        className="foreign"
                      >
                        {row.name}
                      </Anchor>
                      <Text size="xs" className="quiet mono">
                        {row.slug}
                      </Text>
                    </Table.Td>
                    <Table.Td>
                      <Active is={row.isActive} />
                    </Table.Td>
                    <Table.Td>{plans[row.plan].word}</Table.Td>
                    <Table.Td>{limitWord(row.webhookLimit)}</Table.Td>
                    <Table.Td ta="right">{count(row.webhookCount)}</Table.Td>
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
      <Modal opened={making} onClose={close} title="New organization">
        <OrganizationForm
          label="Create"
          busy={create.busy}
          cancel={close}
          submit={({ name, slug, plan, webhookLimit }) =>
            void create.act({ input: { name, slug, plan, webhookLimit } }, 'The organization is made').then((made) => {
              if (made) go(`/admin/organizations/${made.createOrganization.organization.slug}`);
            })
          }
        />
      </Modal>
    </Page>
  );
}
