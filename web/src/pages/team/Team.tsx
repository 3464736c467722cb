import { ActionIcon, Button, Group, Menu, Modal, Text } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { IconDots, IconPlus, IconUsers } from '@tabler/icons-react';
import { useState } from 'react';

import { plural } from '../../format';
import { useOrganization, useViewer } from '../../session/viewer';
import { When } from '../../time';
import { Active } from '../../ui/Active';
import { useOffer } from '../../ui/commands';
import { type DataColumn, DataTable } from '../../ui/DataTable';
import { Empty } from '../../ui/Empty';
import { Page } from '../../ui/Page';
import { SearchBox } from '../../ui/SearchBox';
import { useAct } from '../../ui/useAct';
import { useList } from '../../ui/useList';
import { useRowKeys } from '../../ui/useRowKeys';
import { useSearch } from '../../url';
import { Sessions } from '../account/Sessions';
import { type Change, ChangePerson } from './ChangePerson';
import { InviteForm, roles } from './InviteForm';
import { Invite, type Person, TeamQuery } from './queries';

export default function Team() {
  const { slug, id } = useOrganization();
  const { user: me } = useViewer();
  const [{ q, sessions }, change] = useSearch();
  const list = useList(TeamQuery, { slug, search: q ?? null }, (data) => data.organization?.users);
  const [inviting, { open, close }] = useDisclosure();
  const [asked, setAsked] = useState<{ person: Person; change: Change }>();
  const again = useAct(Invite);
  useOffer([{ label: 'Invite a teammate', run: open }]);
  const rows = useRowKeys<HTMLTableSectionElement>('button[aria-haspopup]');
  const columns: readonly DataColumn<Person>[] = [
    {
      head: 'Email address',
      cell: (person) => (
        <Text size="sm" className="foreign">
          {person.email ?? `User ${person.userId.slice(0, 8)}`}
          {person.id === me.id && <span className="quiet"> (you)</span>}
        </Text>
      ),
    },
    {
      head: 'Role',
      cell: (person) => <RoleCell person={person} ask={() => setAsked({ person, change: 'role' })} />,
    },
    {
      head: 'Status',
      cell: ({ isActive, joinedAt, email }) =>
        isActive && !joinedAt ? (
          <Text size="sm" c="var(--pending)">
            Invited
          </Text>
        ) : (
          <Active is={isActive} erased={email === null} />
        ),
    },
    { head: 'Last sign-in', cell: ({ lastLoginAt }) => <When at={lastLoginAt} /> },
    {
      head: 'Sessions',
      cell: (person) => <SessionsCell person={person} show={() => change({ sessions: person.id })} />,
    },
    { head: 'Added', cell: ({ createdAt }) => <When at={createdAt} /> },
  ];
  const looked = list.rows.find((person) => person.id === sessions);
  const invite = (
    <Button size="xs" leftSection={<IconPlus size={14} aria-hidden />} onClick={open}>
      Invite a teammate
    </Button>
  );
  return (
    <Page
      title="Team"
      lead="The people who can see this organization's webhooks and change its settings"
      actions={
        <>
          <SearchBox
            label="Search by email address"
            value={q ?? ''}
            onChange={(next) => change({ q: next }, { replace: true })}
          />
          {invite}
        </>
      }
    >
      <DataTable
        list={list}
        columns={columns}
        minWidth={700}
        bodyRef={rows}
        empty={
          <Empty icon={IconUsers} title={q ? 'No users match' : 'No teammates yet'} action={invite}>
            {q
              ? 'You can search for any part of an email address.'
              : "Invite the people who work with this organization's webhooks. Members can view and retry webhooks; admins can also change settings."}
          </Empty>
        }
        actions={(person) =>
          person.email !== null && (
            <Actions
              person={person}
              ask={(what) => setAsked({ person, change: what })}
              inviteAgain={() =>
                void again.act(
                  { input: { organizationId: id, email: person.email ?? '', role: person.role ?? 'MEMBER' } },
                  `We're sending another invitation to ${person.email}.`,
                )
              }
            />
          )
        }
      />
      <Modal opened={inviting} onClose={close} title="Invite a teammate">
        <InviteForm
          close={close}
          done={() => {
            close();
            list.reload();
          }}
        />
      </Modal>
      <Modal opened={Boolean(looked)} onClose={() => change({ sessions: undefined })} title="Active sessions" size="lg">
        {looked && (
          <>
            <Text size="sm" className="quiet foreign" mb="xs">
              {looked.email}
            </Text>
            <Sessions of={looked.sessions} ended={list.reload} />
            <Group justify="flex-end" mt="md">
              <Button variant="default" onClick={() => setAsked({ person: looked, change: 'sessions' })}>
                Sign out everywhere
              </Button>
            </Group>
          </>
        )}
      </Modal>
      {asked && (
        <ChangePerson
          person={asked.person}
          change={asked.change}
          isMe={asked.person.id === me.id}
          close={() => setAsked(undefined)}
          done={() => {
            setAsked(undefined);
            change({ sessions: undefined });
            list.reload();
          }}
        />
      )}
    </Page>
  );
}

function RoleCell({ person, ask }: { person: Person; ask: () => void }) {
  return (
    <Group gap="xs" wrap="nowrap">
      <Text size="sm" w={64}>
        {person.role ? roles[person.role].word : 'Super admin'}
      </Text>
      {person.email !== null && (
        <Button size="compact-xs" variant="default" onClick={ask}>
          {person.role === 'ADMIN' ? 'Make member' : 'Make admin'}
        </Button>
      )}
    </Group>
  );
}

function SessionsCell({ person: { sessions, email }, show }: { person: Person; show: () => void }) {
  if (sessions.length === 0) return <span className="quiet">–</span>;
  return (
    <Button
      size="compact-xs"
      variant="default"
      aria-label={`${plural(sessions.length, 'session')} of ${email}`}
      onClick={show}
    >
      {sessions.length}
    </Button>
  );
}

function Actions({
  person,
  ask,
  inviteAgain,
}: {
  person: Person;
  ask: (change: Change) => void;
  inviteAgain: () => void;
}) {
  return (
    <Menu position="bottom-end" width={230}>
      <Menu.Target>
        <ActionIcon variant="subtle" color="gray" aria-label={`Actions for ${person.email}`}>
          <IconDots size={16} />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        {person.isActive && !person.joinedAt && <Menu.Item onClick={inviteAgain}>Resend invitation</Menu.Item>}
        {person.sessions.length > 0 && <Menu.Item onClick={() => ask('sessions')}>Sign out everywhere</Menu.Item>}
        <Menu.Item c={person.isActive ? 'var(--failed)' : undefined} onClick={() => ask('active')}>
          {person.isActive ? 'Deactivate' : 'Reactivate'}
        </Menu.Item>
        {!person.isActive && (
          <Menu.Item c="var(--failed)" onClick={() => ask('erase')}>
            Erase personal data
          </Menu.Item>
        )}
      </Menu.Dropdown>
    </Menu>
  );
}
