import { ActionIcon, Button, Group, Menu, Modal, Table, Text } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { IconDots, IconPlus, IconUsers } from '@tabler/icons-react';
import { useState } from 'react';

import { plural } from '../../format';
import { useOrganization, useViewer } from '../../session/viewer';
import { When } from '../../time';
import { Active } from '../../ui/Active';
import { Card } from '../../ui/Card';
import { useOffer } from '../../ui/commands';
import { Empty } from '../../ui/Empty';
import { ListEnd } from '../../ui/ListEnd';
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
  useOffer([{ label: 'Invite somebody', run: open }]);
  const rows = useRowKeys<HTMLTableSectionElement>('button[aria-haspopup]');
  const looked = list.rows.find((person) => person.id === sessions);
  const invite = (
    <Button size="xs" leftSection={<IconPlus size={14} aria-hidden />} onClick={open}>
      Invite
    </Button>
  );
  return (
    <Page
      title="Team"
      lead="Who sees this organization's webhooks, and who may change its settings"
      actions={
        <>
          <SearchBox
            label="E-mail address"
            value={q ?? ''}
            onChange={(next) => change({ q: next }, { replace: true })}
          />
          {invite}
        </>
      }
    >
      {!list.isFirst && !list.error && list.rows.length === 0 ? (
        <Empty icon={IconUsers} title={q ? 'Nobody matches' : 'Nobody is here yet'} action={invite}>
          {q
            ? 'An address is found by any part of it.'
            : 'Invite the people who work with the webhooks of this organization. Members look and retry; admins change settings, too.'}
        </Empty>
      ) : (
        <Card p={0}>
          <Table.ScrollContainer minWidth={700}>
            <Table highlightOnHover>
              <Table.Thead>
                <Table.Tr>
                  <Table.Th>E-mail address</Table.Th>
                  <Table.Th>Role</Table.Th>
                  <Table.Th>State</Table.Th>
                  <Table.Th>Last sign-in</Table.Th>
                  <Table.Th>Sessions</Table.Th>
                  <Table.Th>Invited or made</Table.Th>
                  <Table.Th w={48} aria-label="Actions" />
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody ref={rows}>
                {list.rows.map((person) => (
                  <Table.Tr key={person.id}>
                    <Table.Td>
                      <Text size="sm" className="foreign">
                        {person.email ?? `user ${person.userId.slice(0, 8)}`}
                        {person.id === me.id && <span className="quiet"> (you)</span>}
                      </Text>
                    </Table.Td>
                    <Table.Td>
                      <Group gap="xs" wrap="nowrap">
                        <Text size="sm" w={64}>
                          {person.role ? roles[person.role].word : 'Super admin'}
                        </Text>
                        {person.email !== null && (
                          <Button
                            size="compact-xs"
                            variant="default"
                            onClick={() => setAsked({ person, change: 'role' })}
                          >
                            {person.role === 'ADMIN' ? 'Make member' : 'Make admin'}
                          </Button>
                        )}
                      </Group>
                    </Table.Td>
                    <Table.Td>
                      {person.isActive && !person.joinedAt ? (
                        <Text size="sm" c="var(--pending)">
                          Invited
                        </Text>
                      ) : (
                        <Active is={person.isActive} erased={person.email === null} />
                      )}
                    </Table.Td>
                    <Table.Td>
                      <When at={person.lastLoginAt} />
                    </Table.Td>
                    <Table.Td>
                      {person.sessions.length > 0 ? (
                        <Button
                          size="compact-xs"
                          variant="default"
                          aria-label={`${plural(person.sessions.length, 'session')} of ${person.email}`}
                          onClick={() => change({ sessions: person.id })}
                        >
                          {person.sessions.length}
                        </Button>
                      ) : (
                        <span className="quiet">–</span>
                      )}
                    </Table.Td>
                    <Table.Td>
                      <When at={person.createdAt} />
                    </Table.Td>
                    <Table.Td>
                      {person.email !== null && (
                        <Actions
                          person={person}
                          ask={(what) => setAsked({ person, change: what })}
                          inviteAgain={() =>
                            void again.act(
                              {
                                input: { organizationId: id, email: person.email ?? '', role: person.role ?? 'MEMBER' },
                              },
                              `Another mail is on its way to ${person.email}`,
                            )
                          }
                        />
                      )}
                    </Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
          <ListEnd of={list} />
        </Card>
      )}
      <Modal opened={inviting} onClose={close} title="Invite somebody">
        <InviteForm
          close={close}
          done={() => {
            close();
            list.reload();
          }}
        />
      </Modal>
      <Modal
        opened={Boolean(looked)}
        onClose={() => change({ sessions: undefined })}
        title="Where they are signed in"
        size="lg"
      >
        {looked && (
          <>
            <Text size="sm" className="quiet foreign" mb="xs">
              {looked.email}
            </Text>
            <Sessions of={looked.sessions} ended={list.reload} />
            <Group justify="flex-end" mt="md">
              <Button variant="default" onClick={() => setAsked({ person: looked, change: 'sessions' })}>
                End all of them
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
        <ActionIcon variant="subtle" color="gray" aria-label={`Change ${person.email}`}>
          <IconDots size={16} />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        {person.isActive && !person.joinedAt && <Menu.Item onClick={inviteAgain}>Send the invitation again</Menu.Item>}
        {person.sessions.length > 0 && <Menu.Item onClick={() => ask('sessions')}>End all sessions</Menu.Item>}
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
