import { Anchor, Button, Group, Table, Text } from '@mantine/core';
import { IconUsersGroup } from '@tabler/icons-react';
import { useState } from 'react';
import { Link } from 'wouter';

import { graphql, type ResultOf } from '../../api/graphql';
import { useViewer } from '../../session/viewer';
import { When } from '../../time';
import { Active } from '../../ui/Active';
import { ActiveChoice, activeOf } from '../../ui/ActiveChoice';
import { Card } from '../../ui/Card';
import { ChooseAll, ChooseRow } from '../../ui/ChooseRows';
import { Confirm } from '../../ui/Confirm';
import { Empty } from '../../ui/Empty';
import { ListEnd } from '../../ui/ListEnd';
import { Page } from '../../ui/Page';
import { SearchBox } from '../../ui/SearchBox';
import { orderOf, SortBy } from '../../ui/SortBy';
import { useAct } from '../../ui/useAct';
import { useList } from '../../ui/useList';
import { useSelection } from '../../ui/useSelection';
import { useSearch } from '../../url';
import { SetActive } from './SetActive';

const Query = graphql(`
  query AdminUsers($search: String, $isActive: Boolean, $orderBy: UserOrder, $after: String) {
    users(first: 50, search: $search, isActive: $isActive, orderBy: $orderBy, after: $after) {
      nodes { id userId email role isActive joinedAt lastLoginAt createdAt organization { id slug name } }
      pageInfo { hasNextPage endCursor }
    }
  }
`);

const SetUserActive = graphql(`
  mutation AdminSetUserActive($id: ID!, $isActive: Boolean!) {
    setUserActive(input: { id: $id, isActive: $isActive }) { user { id isActive } }
  }
`);

const EndSessions = graphql(`
  mutation AdminEndUserSessions($id: ID!) {
    endUserSessions(input: { userId: $id }) { user { id } }
  }
`);

type Row = ResultOf<typeof Query>['users']['nodes'][number];
type Asked = { row: Row; what: 'sessions' | 'active' };

export default function Users() {
  const [{ q, active, sort }, change] = useSearch();
  const { user: me } = useViewer();
  const variables = {
    search: q ?? null,
    isActive: activeOf(active),
    orderBy: orderOf(sort, ['CREATED_AT', 'EMAIL', 'LAST_LOGIN_AT']),
  };
  const list = useList(Query, variables, (data) => data.users);
  // Nobody shuts themselves out, and who was erased stays gone.
  const canChange = ({ id, email }: Row) => id !== me.id && email !== null;
  const changeable = list.rows.filter(canChange).map(({ id }) => id);
  const selection = useSelection(changeable);
  const setActive = useAct(SetUserActive);
  const endSessions = useAct(EndSessions);
  const [asked, setAsked] = useState<Asked>();
  const run = async ({ row, what }: Asked) => {
    const done =
      what === 'sessions'
        ? await endSessions.act({ id: row.id }, 'Their sessions have ended')
        : await setActive.act({ id: row.id, isActive: !row.isActive });
    setAsked(undefined);
    if (done) list.reload();
  };
  return (
    <Page
      title="Users"
      actions={
        <>
          <SearchBox
            label="E-mail address"
            value={q ?? ''}
            onChange={(next) => change({ q: next }, { replace: true })}
          />
          <ActiveChoice />
        </>
      }
    >
      <SetActive
        chosen={selection.chosen}
        clear={selection.clear}
        noun="user"
        activate="Reactivate"
        means={{
          activate: 'They can sign in again.',
          deactivate:
            'They are signed out everywhere, at once, and cannot sign in any more; also where an organization is then left without an admin. Nothing is deleted.',
        }}
        set={async (id, isActive) => Boolean(await setActive.act({ id, isActive }))}
        done={list.reload}
      />
      {!list.isFirst && list.rows.length === 0 ? (
        <Empty icon={IconUsersGroup} title="No user matches">
          An address is found by any part of it.
        </Empty>
      ) : (
        <Card p={0}>
          <Table.ScrollContainer minWidth={960}>
            <Table highlightOnHover>
              <Table.Thead>
                <Table.Tr>
                  <Table.Th w={36}>
                    <ChooseAll of={selection} shown={changeable.length} />
                  </Table.Th>
                  <SortBy field="EMAIL">E-mail address</SortBy>
                  <Table.Th>Organization</Table.Th>
                  <Table.Th>Role</Table.Th>
                  <Table.Th>State</Table.Th>
                  <Table.Th>Joined</Table.Th>
                  <SortBy field="LAST_LOGIN_AT">Last sign-in</SortBy>
                  <SortBy field="CREATED_AT">Created</SortBy>
                  <Table.Th />
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {list.rows.map((row) => (
                  <Table.Tr key={row.id} bg={selection.chosen.has(row.id) ? 'var(--chosen)' : undefined}>
                    <Table.Td>
                      {canChange(row) && <ChooseRow of={selection} id={row.id} label={row.email ?? ''} />}
                    </Table.Td>
                    <Table.Td>
                      <Text size="sm" className="foreign" miw={200}>
                        {row.email ?? `user ${row.userId.slice(0, 8)}`}
                      </Text>
                    </Table.Td>
                    <Table.Td>
                      {row.organization ? (
                        <Anchor
                          component={Link}
                          href={`/admin/organizations/${row.organization.slug}`}
                          size="sm"
                          className="foreign"
                        >
                          {row.organization.name}
                        </Anchor>
                      ) : (
                        '–'
                      )}
                    </Table.Td>
                    <Table.Td>{row.role === null ? 'Super admin' : row.role === 'ADMIN' ? 'Admin' : 'Member'}</Table.Td>
                    <Table.Td>
                      <Active is={row.isActive} erased={row.email === null} />
                    </Table.Td>
                    <Table.Td>
                      {row.joinedAt ? (
                        <When at={row.joinedAt} />
                      ) : (
                        <Text size="sm" className="quiet">
                          invited
                        </Text>
                      )}
                    </Table.Td>
                    <Table.Td>
                      <When at={row.lastLoginAt} />
                    </Table.Td>
                    <Table.Td>
                      <When at={row.createdAt} />
                    </Table.Td>
                    <Table.Td>
                      <Group gap="xs" justify="flex-end" wrap="nowrap">
                        {row.email !== null && (
                          <Button
                            size="compact-xs"
                            variant="default"
                            onClick={() => setAsked({ row, what: 'sessions' })}
                          >
                            End sessions
                          </Button>
                        )}
                        {canChange(row) && (
                          <Button size="compact-xs" variant="default" onClick={() => setAsked({ row, what: 'active' })}>
                            {row.isActive ? 'Deactivate' : 'Reactivate'}
                          </Button>
                        )}
                      </Group>
                    </Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
          <ListEnd of={list} />
        </Card>
      )}
      {asked && (
        <Confirm
          opened
          close={() => setAsked(undefined)}
          title={
            asked.what === 'sessions'
              ? 'End all sessions'
              : asked.row.isActive
                ? 'Deactivate this user'
                : 'Reactivate this user'
          }
          label={asked.what === 'sessions' ? 'End sessions' : asked.row.isActive ? 'Deactivate' : 'Reactivate'}
          danger={asked.what === 'active' && asked.row.isActive}
          busy={setActive.busy || endSessions.busy}
          run={() => void run(asked)}
        >
          <b className="foreign">{asked.row.email ?? 'This user'}</b>{' '}
          {asked.what === 'sessions'
            ? 'is signed out everywhere, at once, and can sign in again.'
            : asked.row.isActive
              ? 'is signed out everywhere, at once, and cannot sign in any more.'
              : 'can sign in again.'}
        </Confirm>
      )}
    </Page>
  );
}
