import { useState } from 'react';

import { Confirm } from '../../ui/Confirm';
import { Remains } from '../../ui/Remains';
import { useAct } from '../../ui/useAct';
import { EndSessions, Erase, type Person, SetActive, SetRole } from './queries';

export type Change = 'role' | 'active' | 'sessions' | 'erase';

type Props = { person: Person; change: Change; isMe: boolean; close: () => void; done: () => void };

/** Asks before a user's role, status or sessions change. It shows the server's refusals, such as for the last admin. */
export function ChangePerson({ person, change, isMe, close, done }: Props) {
  const setRole = useAct(SetRole, { quiet: true });
  const setActive = useAct(SetActive, { quiet: true });
  const endSessions = useAct(EndSessions, { quiet: true });
  const erase = useAct(Erase, { quiet: true });
  const [remains, setRemains] = useState<readonly string[]>();
  const { id, email, role, isActive } = person;
  const toAdmin = role !== 'ADMIN';
  const run = async () => {
    if (change === 'erase') {
      setRemains((await erase.act({ id }))?.eraseUser.remains);
      return;
    }
    const answer =
      change === 'role'
        ? await setRole.act(
            { id, role: toAdmin ? 'ADMIN' : 'MEMBER' },
            `${email} is now ${toAdmin ? 'an admin' : 'a member'}`,
          )
        : change === 'active'
          ? await setActive.act({ id, isActive: !isActive }, `${email} is ${isActive ? 'deactivated' : 'active again'}`)
          : await endSessions.act({ id }, `${email} is signed out everywhere`);
    if (answer) done();
  };
  const [title, label, what] =
    change === 'role'
      ? toAdmin
        ? [
            'Make this user an admin',
            'Make admin',
            'will be able to change providers, secrets, and destinations, invite and deactivate users, and see usage and the audit trail.',
          ]
        : [
            'Make this user a member',
            'Make member',
            'will still see webhooks and analytics and can retry, but can no longer change settings or manage users.',
          ]
      : change === 'active'
        ? isActive
          ? [
              'Deactivate this user',
              'Deactivate user',
              'is signed out everywhere immediately and can no longer sign in. You can reactivate them later. Their actions stay in the audit trail.',
            ]
          : ['Reactivate this user', 'Reactivate user', 'can sign in again with their previous role.']
        : change === 'erase'
          ? [
              'Erase personal data',
              'Erase personal data',
              "will be identified only by a random ID. Their email address and sessions are removed, and the address can be invited again. This can't be undone.",
            ]
          : [
              'Sign out everywhere',
              'Sign out everywhere',
              'is signed out everywhere immediately and can sign in again.',
            ];
  if (remains) return <Remains of={remains} title="Personal data erased" close={done} />;
  return (
    <Confirm
      opened
      close={close}
      title={title}
      label={label}
      danger={change === 'erase' || (change === 'active' && isActive)}
      typed={change === 'erase' ? (email ?? undefined) : undefined}
      busy={setRole.busy || setActive.busy || endSessions.busy || erase.busy}
      error={setRole.error ?? setActive.error ?? endSessions.error ?? erase.error}
      run={() => void run()}
    >
      <b className="foreign">{email ?? 'This user'}</b> {what}
      {isMe && <b> This is you.</b>}
    </Confirm>
  );
}
