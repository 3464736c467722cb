import { Anchor, Button, Stack, Text, TextInput, Title } from '@mantine/core';
import { IconMailCheck } from '@tabler/icons-react';
import { type FormEvent, useEffect, useState } from 'react';
import { Link } from 'wouter';

import { isOurs, rememberDestination } from '../../session/destination';
import { useToken } from '../../session/session';
import { useSearch } from '../../url';
import { Narrow } from './Narrow';
import { post } from './post';

/** Asks for an email address, and sends a link. It never reveals whether the address has an account. */
export default function SignIn() {
  const [{ next }] = useSearch();
  const token = useToken();
  const [email, setEmail] = useState('');
  const [sentTo, setSentTo] = useState<string>();
  const [error, setError] = useState<string>();
  const [busy, setBusy] = useState(false);
  useEffect(() => rememberDestination(next ?? null), [next]);

  const submit = async (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    const answer = await post('/api/auth/request-magic-link', { email });
    setBusy(false);
    setError(answer.error);
    if (!answer.error) setSentTo(email);
  };

  if (sentTo) {
    return (
      <Narrow title="Check your email">
        <Stack gap="sm" align="flex-start">
          <IconMailCheck size={40} stroke={1.4} aria-hidden />
          <Title order={1}>Check your email</Title>
          <Text size="sm">
            If <b className="foreign">{sentTo}</b> has an account, we've sent a sign-in link. It works once and expires
            in 15 minutes.
          </Text>
          <Text size="sm" className="quiet">
            No mail server? The link is in the server's log, or run <code>hookledger sign-in-link {sentTo}</code>.
          </Text>
          <Button variant="default" onClick={() => setSentTo(undefined)}>
            Use a different address
          </Button>
        </Stack>
      </Narrow>
    );
  }
  return (
    <Narrow title="Sign in">
      <form onSubmit={(event) => void submit(event)}>
        <Stack gap="md">
          <div>
            <Title order={1}>Sign in</Title>
            <Text size="sm" className="quiet">
              No password needed. We'll email you a sign-in link.
            </Text>
          </div>
          <TextInput
            label="Email address"
            type="email"
            name="email"
            autoComplete="email"
            required
            autoFocus
            value={email}
            error={error}
            onChange={(event) => setEmail(event.currentTarget.value)}
          />
          <Button type="submit" loading={busy}>
            Send sign-in link
          </Button>
          {token && (
            <Anchor component={Link} href={next && isOurs(next) ? next : '/'} size="sm">
              You're already signed in. Continue
            </Anchor>
          )}
          <Text size="sm" className="quiet">
            Just looking?{' '}
            <Anchor component={Link} href="/demo" size="sm" underline="always">
              Try the demo
            </Anchor>
            . You don't need an account.
          </Text>
        </Stack>
      </form>
    </Narrow>
  );
}
