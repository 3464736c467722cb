import { Badge, Button, Group, Stack, Text } from '@mantine/core';

import { graphql, type ResultOf } from '../../api/graphql';
import { When } from '../../time';
import { useAct } from '../../ui/useAct';
import { device } from './device';
import classes from './Sessions.module.css';

export const SessionFragment = graphql(`
  fragment SessionFields on Session @_unmask { id startedAt expiresAt client userAgent isCurrent }
`);

export type Session = ResultOf<typeof SessionFragment>;

const EndSession = graphql(`
  mutation EndSession($id: ID!) {
    endSession(input: { id: $id }) { session { id } }
  }
`);

/** A user's sessions, with a button to end each but the current one, which ends by signing out. */
export function Sessions({ of, ended }: { of: readonly Session[]; ended: () => void }) {
  const end = useAct(EndSession);
  if (of.length === 0)
    return (
      <Text size="sm" className="quiet">
        No active sessions
      </Text>
    );
  return (
    <Stack gap={0} component="ul" className={classes.list}>
      {of.map((session) => (
        <Group key={session.id} component="li" justify="space-between" wrap="nowrap" className={classes.session}>
          <div className={classes.what}>
            <Group gap={8}>
              <Text size="sm" fw={500} className="foreign" title={session.userAgent ?? undefined}>
                {device(session.userAgent)}
              </Text>
              {session.isCurrent && (
                <Badge variant="light" color="teal" c="var(--success)" tt="none">
                  This device
                </Badge>
              )}
            </Group>
            <Text size="xs" className="quiet" component="div">
              <span className="mono foreign">{session.client ?? 'Unknown IP address'}</span> · signed in{' '}
              <When at={session.startedAt} size="xs" /> · expires <When at={session.expiresAt} size="xs" />
            </Text>
          </div>
          {!session.isCurrent && (
            <Button
              size="compact-xs"
              variant="default"
              loading={end.busy}
              aria-label={`Sign out ${device(session.userAgent)}`}
              onClick={() =>
                void end.act({ id: session.id }, 'Session signed out').then((done) => {
                  if (done) ended();
                })
              }
            >
              Sign out
            </Button>
          )}
        </Group>
      ))}
    </Stack>
  );
}

export function useEndSession() {
  return useAct(EndSession);
}
