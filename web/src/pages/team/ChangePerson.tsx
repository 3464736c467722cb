import { useState } from 'react';

import { Confirm } from '../../ui/Confirm';
import { Remains } from '../../ui/Remains';
import { useAct } from '../../ui/useAct';
import { EndSessions, Erase, type Person, SetActive, SetRole } from './queries';

export type Change = 'role' | 'active' | 'sessions' | 'erase';

type Props = { person: Person; change: Change; isMe: boolean; close: () => void; done: () => void };

/** Asks before somebody's role, state or sessions change. What the server refuses, like the last admin, is said here. */
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
            `${email} is ${toAdmin ? 'an admin' : 'a member'} now`,
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
            'Make them an admin',
            'Make admin',
            'can change providers, secrets and destinations, invite and deactivate people, and see usage and the audit trail.',
          ]
        : [
            'Make them a member',
            'Make member',
            'sees webhooks and analytics and retries, and cannot change settings or people any more.',
          ]
      : change === 'active'
        ? isActive
          ? [
              'Deactivate this user',
              'Deactivate',
              'is signed out everywhere at once, and cannot sign in any more. What they did stays in the audit trail.',
            ]
          : ['Reactivate this user', 'Reactivate', 'can sign in again, with the role they had.']
        : change === 'erase'
          ? [
              'Erase personal data',
              'Erase',
              'is known by a random number from now on: the address and sessions are removed, and the address may be invited again. This cannot be taken back.',
            ]
          : ['End all sessions', 'End sessions', 'is signed out everywhere at once, and can sign in again.'];
  if (remains) return <Remains of={remains} title="Their personal data was erased" close={done} />;
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
      {isMe && <b> That is you.</b>}
    </Confirm>
  );
}
