import { Button, Group, Radio, Stack, Text, TextInput } from '@mantine/core';
import { notifications } from '@mantine/notifications';
import { useState } from 'react';

import { useOrganization } from '../../session/viewer';
import { useAct } from '../../ui/useAct';
import { Invite } from './queries';

type Role = 'ADMIN' | 'MEMBER';

export const roles: Record<Role, { word: string; means: string }> = {
  ADMIN: { word: 'Admin', means: 'Can also connect providers, invite users, and see usage and the audit trail' },
  MEMBER: { word: 'Member', means: 'Can see webhooks and analytics, retry webhooks, and send tests' },
};

/** The answer is the same for every address. */
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
            title: 'Invitation sent',
            message: `We're emailing a sign-in link to ${email.trim()}.`,
          });
          done();
        });
      }}
    >
      <Stack gap="sm">
        <TextInput
          label="Email address"
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
          We'll email them a link to join. An address can belong to only one organization; if this one already belongs
          to another, only its owner is told.
        </Text>
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={close}>
            Cancel
          </Button>
          <Button type="submit" loading={invite.busy}>
            Send invitation
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
