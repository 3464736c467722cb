import { Anchor, Button, Group, Text } from '@mantine/core';
import { IconUsersGroup } from '@tabler/icons-react';
import { useState } from 'react';
import { Link } from 'wouter';

import { graphql, type ResultOf } from '../../api/graphql';
import { useViewer } from '../../session/viewer';
import { When } from '../../time';
import { Active } from '../../ui/Active';
import { ActiveChoice, activeOf } from '../../ui/ActiveChoice';
import { Confirm } from '../../ui/Confirm';
import { type DataColumn, DataTable } from '../../ui/DataTable';
import { Empty } from '../../ui/Empty';
import { Page } from '../../ui/Page';
import { SearchBox } from '../../ui/SearchBox';
import { orderOf } from '../../ui/SortBy';
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
const columns: readonly DataColumn<Row>[] = [
  {
    head: 'Email address',
    sort: 'EMAIL',
    cell: ({ email, userId }) => (
      <Text size="sm" className="foreign" miw={200}>
        {email ?? `User ${userId.slice(0, 8)}`}
      </Text>
    ),
  },
  {
    head: 'Organization',
    cell: ({ organization }) =>
      organization ? (
        <Anchor component={Link} href={`/admin/organizations/${organization.slug}`} size="sm" className="foreign">
          {organization.name}
        </Anchor>
      ) : (
        '–'
      ),
  },
  { head: 'Role', cell: ({ role }) => (role === null ? 'Super admin' : role === 'ADMIN' ? 'Admin' : 'Member') },
  { head: 'Status', cell: ({ isActive, email }) => <Active is={isActive} erased={email === null} /> },
  {
    head: 'Joined',
    cell: ({ joinedAt }) =>
      joinedAt ? (
        <When at={joinedAt} />
      ) : (
        <Text size="sm" className="quiet">
          Invited
        </Text>
      ),
  },
  { head: 'Last sign-in', sort: 'LAST_LOGIN_AT', cell: ({ lastLoginAt }) => <When at={lastLoginAt} /> },
  { head: 'Created', sort: 'CREATED_AT', cell: ({ createdAt }) => <When at={createdAt} /> },
];

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
  // Nobody can lock themselves out, and erased users cannot be changed.
  const canChange = ({ id, email }: Row) => id !== me.id && email !== null;
  const changeable = list.rows.filter(canChange).map(({ id }) => id);
  const selection = useSelection(changeable);
  const setActive = useAct(SetUserActive);
  const endSessions = useAct(EndSessions);
  const [asked, setAsked] = useState<Asked>();
  const run = async ({ row, what }: Asked) => {
    const done =
      what === 'sessions'
        ? await endSessions.act({ id: row.id }, 'User signed out everywhere')
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
            label="Search by email address"
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
            'They are signed out everywhere immediately and can no longer sign in, even if an organization is left without an admin. Nothing is deleted, and you can reactivate them later.',
        }}
        set={async (id, isActive) => Boolean(await setActive.act({ id, isActive }))}
        done={list.reload}
      />
      <DataTable
        list={list}
        columns={columns}
        minWidth={960}
        select={{ of: selection, label: ({ email }) => email ?? '', can: canChange }}
        empty={
          <Empty icon={IconUsersGroup} title={q || active ? 'No users match' : 'No users yet'}>
            You can search for any part of an email address.
          </Empty>
        }
        actions={(row) => (
          <Group gap="xs" justify="flex-end" wrap="nowrap">
            {row.email !== null && (
              <Button size="compact-xs" variant="default" onClick={() => setAsked({ row, what: 'sessions' })}>
                Sign out everywhere
              </Button>
            )}
            {canChange(row) && (
              <Button size="compact-xs" variant="default" onClick={() => setAsked({ row, what: 'active' })}>
                {row.isActive ? 'Deactivate' : 'Reactivate'}
              </Button>
            )}
          </Group>
        )}
      />
      {asked && (
        <Confirm
          opened
          close={() => setAsked(undefined)}
          title={verb(asked)}
          label={verb(asked)}
          danger={asked.what === 'active' && asked.row.isActive}
          busy={setActive.busy || endSessions.busy}
          run={() => void run(asked)}
        >
          <b className="foreign">{asked.row.email ?? 'This user'}</b>{' '}
          {asked.what === 'sessions'
            ? 'is signed out everywhere immediately and can sign in again.'
            : asked.row.isActive
              ? 'is signed out everywhere immediately and can no longer sign in. You can reactivate them later.'
              : 'can sign in again.'}
        </Confirm>
      )}
    </Page>
  );
}

function verb({ row, what }: Asked): string {
  if (what === 'sessions') return 'Sign out everywhere';
  return row.isActive ? 'Deactivate user' : 'Reactivate user';
}
