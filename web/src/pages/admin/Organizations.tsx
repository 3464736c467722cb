import { Anchor, Button, Checkbox, Group, Modal, SegmentedControl, Table, Text } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { IconBuilding, IconPlus } from '@tabler/icons-react';
import { useState } from 'react';
import { Link, useLocation } from 'wouter';

import { graphql } from '../../api/graphql';
import { count, plural } from '../../format';
import { When } from '../../time';
import { Active } from '../../ui/Active';
import { Card } from '../../ui/Card';
import { Confirm } from '../../ui/Confirm';
import { Empty } from '../../ui/Empty';
import { ListEnd } from '../../ui/ListEnd';
import { Page } from '../../ui/Page';
import { SearchBox } from '../../ui/SearchBox';
import { useAct } from '../../ui/useAct';
import { useList } from '../../ui/useList';
import { useSelection } from '../../ui/useSelection';
import { useSearch } from '../../url';
import { OrganizationForm } from './OrganizationForm';
import { limitWord, plans } from './plans';

const Query = graphql(`
  query AdminOrganizations($search: String, $isActive: Boolean, $after: String) {
    organizations(first: 50, search: $search, isActive: $isActive, after: $after) {
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
  const [{ q, active }, change] = useSearch();
  const [, go] = useLocation();
  const variables = { search: q ?? null, isActive: active ? active === 'yes' : null };
  const list = useList(Query, variables, (data) => data.organizations);
  const { chosen, toggle, clear, all } = useSelection(list.rows.map(({ id }) => id));
  const [making, { open, close }] = useDisclosure();
  const create = useAct(Create);
  const set = useAct(SetOrganizationActive);
  const [asked, setAsked] = useState<boolean>();
  const [done, setDone] = useState<number>();

  const setAll = async (isActive: boolean) => {
    setDone(0);
    for (const id of chosen) {
      if (!(await set.act({ id, isActive }))) break;
      setDone((before) => (before ?? 0) + 1);
    }
    setDone(undefined);
    setAsked(undefined);
    clear();
    list.reload();
  };

  return (
    <Page
      title="Organizations"
      actions={
        <>
          <SearchBox label="Name or slug" value={q ?? ''} onChange={(next) => change({ q: next }, { replace: true })} />
          <SegmentedControl
            size="xs"
            aria-label="Which"
            value={active ?? 'all'}
            onChange={(next) => change({ active: next === 'all' ? undefined : next })}
            data={[
              { value: 'all', label: 'All' },
              { value: 'yes', label: 'Active' },
              { value: 'no', label: 'Deactivated' },
            ]}
          />
          <Button size="xs" leftSection={<IconPlus size={14} />} onClick={open}>
            New organization
          </Button>
        </>
      }
    >
      {chosen.size > 0 && (
        <Group mb="sm" gap="xs" role="status">
          <Text size="sm">{plural(chosen.size, 'organization')} chosen</Text>
          <Button size="xs" variant="default" onClick={() => setAsked(true)}>
            Reactivate
          </Button>
          <Button size="xs" variant="default" c="var(--failed)" onClick={() => setAsked(false)}>
            Deactivate
          </Button>
          <Button size="xs" variant="subtle" onClick={clear}>
            Choose none
          </Button>
        </Group>
      )}
      {!list.isFirst && list.rows.length === 0 ? (
        <Empty icon={IconBuilding} title={q || active ? 'No organization matches' : 'No organization yet'} action={<Button onClick={open}>New organization</Button>}>
          An organization is a customer: its providers, its webhooks and its people are apart from everybody else's.
        </Empty>
      ) : (
        <Card p={0}>
          <Table.ScrollContainer minWidth={760}>
            <Table highlightOnHover>
              <Table.Thead>
                <Table.Tr>
                  <Table.Th w={36}>
                    <Checkbox
                      size="xs"
                      aria-label="Choose all shown"
                      checked={chosen.size > 0 && chosen.size === list.rows.length}
                      indeterminate={chosen.size > 0 && chosen.size < list.rows.length}
                      onChange={() => (chosen.size > 0 ? clear() : all())}
                    />
                  </Table.Th>
                  <Table.Th>Name</Table.Th>
                  <Table.Th>State</Table.Th>
                  <Table.Th>Plan</Table.Th>
                  <Table.Th>Limit</Table.Th>
                  <Table.Th ta="right">Webhooks</Table.Th>
                  <Table.Th>Created</Table.Th>
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {list.rows.map((row) => (
                  <Table.Tr key={row.id} bg={chosen.has(row.id) ? 'var(--chosen)' : undefined}>
                    <Table.Td>
                      <Checkbox
                        size="xs"
                        aria-label={`Choose ${row.name}`}
                        checked={chosen.has(row.id)}
                        onChange={(event) => toggle(row.id, (event.nativeEvent as MouseEvent).shiftKey)}
                      />
                    </Table.Td>
                    <Table.Td>
                      <Anchor component={Link} href={`/admin/organizations/${row.slug}`} size="sm" fw={500} className="foreign">
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
      <Confirm
        opened={asked !== undefined}
        close={() => setAsked(undefined)}
        title={`${asked ? 'Reactivate' : 'Deactivate'} ${plural(chosen.size, 'organization')}`}
        label={done === undefined ? (asked ? 'Reactivate' : 'Deactivate') : `${done} of ${chosen.size}`}
        danger={!asked}
        busy={done !== undefined}
        run={() => void setAll(asked === true)}
      >
        {asked
          ? 'Their webhooks are accepted again, and their people can sign in.'
          : 'Their webhooks are refused from now on, and the sessions of their people end at once. Nothing is deleted.'}
      </Confirm>
    </Page>
  );
}
