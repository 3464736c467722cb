import { Button, Group, SegmentedControl, SimpleGrid, Stack, Text, useMantineColorScheme } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { notifications } from '@mantine/notifications';
import { IconLogout } from '@tabler/icons-react';
import { useState } from 'react';
import { useQuery } from 'urql';

import { graphql } from '../../api/graphql';
import { plural } from '../../format';
import { signOut } from '../../session/session';
import { absolute, setZone, useNow, useZone, When } from '../../time';
import { Card } from '../../ui/Card';
import { Confirm } from '../../ui/Confirm';
import { ErrorCard } from '../../ui/ErrorCard';
import { Page } from '../../ui/Page';
import { PageLoading } from '../../ui/PageLoading';
import classes from '../providers/ProviderCard.module.css';
import { SessionFragment, Sessions, useEndSession } from './Sessions';

const Query = graphql(
  `
    query Account {
      viewer {
        isSuperAdmin
        user { id userId email role joinedAt createdAt }
        organization { id name slug }
        sessions { ...SessionFields }
      }
    }
  `,
  [SessionFragment],
);

export default function Account() {
  const [{ data, error, fetching }, again] = useQuery({ query: Query });
  const reload = () => again({ requestPolicy: 'network-only' });
  if (!data) return error && !fetching ? <ErrorCard error={error} again={reload} /> : <PageLoading />;
  const { user, organization, isSuperAdmin, sessions } = data.viewer;
  return (
    <Page
      title="Account"
      actions={
        <Button
          variant="default"
          size="xs"
          leftSection={<IconLogout size={14} aria-hidden />}
          onClick={() => void signOut()}
        >
          Sign out
        </Button>
      }
    >
      <SimpleGrid cols={{ base: 1, md: 2 }} spacing="md">
        <Stack gap="md">
          <Card title="Profile">
            <dl className={classes.facts} style={{ border: 0, margin: 0, padding: 0 }}>
              <dt>Email address</dt>
              <dd className="foreign">{user.email}</dd>
              <dt>Role</dt>
              <dd>{isSuperAdmin ? 'Super admin' : user.role === 'ADMIN' ? 'Organization admin' : 'Team member'}</dd>
              <dt>Organization</dt>
              <dd className="foreign">{organization?.name ?? 'None (super admins see every organization)'}</dd>
              <dt>Member since</dt>
              <dd>
                <When at={user.joinedAt ?? user.createdAt} exact />
              </dd>
              <dt>User ID</dt>
              <dd className="mono">{user.userId}</dd>
            </dl>
          </Card>
          <Preferences />
        </Stack>
        <SessionsCard sessions={sessions} reload={reload} />
      </SimpleGrid>
    </Page>
  );
}

/** The choice is stored in this browser. */
function Preferences() {
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  const zone = useZone();
  const now = useNow();
  return (
    <Card title="Appearance">
      <Stack gap="sm">
        <Group justify="space-between">
          <Text size="sm">Theme</Text>
          <SegmentedControl
            size="xs"
            aria-label="Theme"
            value={colorScheme}
            onChange={(next) => setColorScheme(next as typeof colorScheme)}
            data={[
              { value: 'auto', label: 'System' },
              { value: 'light', label: 'Light' },
              { value: 'dark', label: 'Dark' },
            ]}
          />
        </Group>
        <Group justify="space-between">
          <div>
            <Text size="sm">Time zone</Text>
            <Text size="xs" className="quiet">
              Now: {absolute(now, zone).slice(0, 16)}
              {zone === 'utc' ? ' UTC' : ` (${Intl.DateTimeFormat().resolvedOptions().timeZone})`}
            </Text>
          </div>
          <SegmentedControl
            size="xs"
            aria-label="Time zone"
            value={zone}
            onChange={(next) => setZone(next as typeof zone)}
            data={[
              { value: 'utc', label: 'UTC' },
              { value: 'local', label: 'Local' },
            ]}
          />
        </Group>
      </Stack>
    </Card>
  );
}

function SessionsCard({ sessions, reload }: { sessions: Parameters<typeof Sessions>[0]['of']; reload: () => void }) {
  const [asked, { open, close }] = useDisclosure();
  const [busy, setBusy] = useState(false);
  const end = useEndSession();
  const others = sessions.filter(({ isCurrent }) => !isCurrent);
  const endOthers = async () => {
    setBusy(true);
    let ended = 0;
    for (const { id } of others) {
      if (!(await end.act({ id }))) break;
      ended += 1;
    }
    setBusy(false);
    close();
    reload();
    if (ended > 0) notifications.show({ color: 'teal', message: `Signed out of ${plural(ended, 'session')}` });
  };
  return (
    <Card
      title="Active sessions"
      actions={
        others.length > 0 && (
          <Button size="compact-xs" variant="default" onClick={open}>
            Sign out everywhere else
          </Button>
        )
      }
    >
      <Sessions of={sessions} ended={reload} />
      <Confirm
        opened={asked}
        close={close}
        title="Sign out everywhere else"
        label="Sign out everywhere else"
        danger
        busy={busy}
        run={() => void endOthers()}
      >
        This ends {plural(others.length, 'session')} on other devices and browsers immediately. You stay signed in here.
      </Confirm>
    </Card>
  );
}
