import { Button, Group, Radio, Stack, Text, TextInput } from '@mantine/core';
import { notifications } from '@mantine/notifications';
import { useState } from 'react';

import { useOrganization } from '../../session/viewer';
import { useAct } from '../../ui/useAct';
import { Invite } from './queries';

type Role = 'ADMIN' | 'MEMBER';

export const roles: Record<Role, { word: string; means: string }> = {
  ADMIN: { word: 'Admin', means: 'Also connects providers, invites people, sees usage and the audit trail' },
  MEMBER: { word: 'Member', means: 'Sees webhooks and analytics, retries, sends tests' },
};

/** The answer is the same whoever the address belongs to. */
export function InviteForm({ close, done }: { close: () => void; done: () => void }) {
  const { id } = useOrganization();
  const [email, setEmail] = useState('');
  const [role, setRole] = useState<Role>('MEMBER');
  const invite = useAct(Invite, { quiet: true });
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        void invite.act({ input: { organizationId: id, email: email.trim(), role } }).then((answer) => {
          if (!answer) return;
          notifications.show({
            color: 'teal',
            title: 'Invited',
            message: `A mail with a link is on its way to ${email.trim()}`,
          });
          done();
        });
      }}
    >
      <Stack gap="sm">
        <TextInput
          label="E-mail address"
          type="email"
          required
          data-autofocus
          autoComplete="off"
          maxLength={254}
          value={email}
          error={invite.error}
          onChange={(event) => setEmail(event.currentTarget.value)}
        />
        <Radio.Group label="Role" value={role} onChange={(next) => setRole(next as Role)}>
          <Stack gap={6} mt={6}>
            {(['MEMBER', 'ADMIN'] as const).map((each) => (
              <Radio key={each} value={each} label={roles[each].word} description={roles[each].means} />
            ))}
          </Stack>
        </Radio.Group>
        <Text size="xs" className="quiet">
          They get a mail with a link, and join by following it. An address belongs to one organization only; should
          this one belong to another, just its owner is told so.
        </Text>
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={close}>
            Cancel
          </Button>
          <Button type="submit" loading={invite.busy}>
            Invite
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
