import { Text } from '@mantine/core';

import { When } from '../../time';
import type { Secret } from './queries';

/** The secrets that still verify. */
export function inForce(secrets: readonly Secret[], now: number): Secret[] {
  return secrets.filter(({ expiresAt }) => !expiresAt || Date.parse(expiresAt) > now);
}

/** One line: the active secrets, and when the newest was last used. */
export function SecretState({ secrets, now }: { secrets: readonly Secret[]; now: number }) {
  const [current, ...others] = inForce(secrets, now);
  const earlier = others.filter(({ expiresAt }) => expiresAt);
  const beside = others.length - earlier.length;
  if (!current) {
    return (
      <Text span size="sm" c="var(--failed)">
        No active secret; all webhooks are rejected
      </Text>
    );
  }
  const retire = earlier.length > 0 && earlier.every(({ safeToRetire }) => safeToRetire);
  return (
    <Text span size="sm">
      Version {current.version},{' '}
      {current.lastUsedAt ? (
        <>
          last used <When at={current.lastUsedAt} />
        </>
      ) : (
        'not used yet'
      )}
      {beside > 0 && ` · ${beside} more active`}
      {earlier[0]?.expiresAt && (
        <>
          {' · '}
          <Text span size="sm" c={retire ? 'var(--success)' : 'var(--pending)'}>
            {retire ? 'old secret safe to retire, expires ' : 'old secret active, expires '}
            <When at={earlier[0].expiresAt} />
          </Text>
        </>
      )}
    </Text>
  );
}
