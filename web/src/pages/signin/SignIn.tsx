import { Anchor, Button, Stack, Text, TextInput, Title } from '@mantine/core';
import { IconMailCheck } from '@tabler/icons-react';
import { type FormEvent, useEffect, useState } from 'react';
import { Link } from 'wouter';

import { isOurs, rememberDestination } from '../../session/destination';
import { useToken } from '../../session/session';
import { useSearch } from '../../url';
import { Narrow } from './Narrow';
import { post } from './post';

/** Asks for an address; a link goes there. Whether the address is known is never told. */
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
      <Narrow title="Look in your mail">
        <Stack gap="sm" align="flex-start">
          <IconMailCheck size={40} stroke={1.4} aria-hidden />
          <Title order={1}>Look in your mail</Title>
          <Text size="sm">
            If <b className="foreign">{sentTo}</b> belongs to a user, a link to sign in is on its way there. It works
            once, for a quarter of an hour.
          </Text>
          <Text size="sm" className="quiet">
            Without a mail server, the link is in the server's log; <code>hookledger sign-in-link ADDRESS</code> prints
            one, too.
          </Text>
          <Button variant="default" onClick={() => setSentTo(undefined)}>
            Use another address
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
              No password: a link comes to your mailbox.
            </Text>
          </div>
          <TextInput
            label="E-mail address"
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
            Send me a link
          </Button>
          {token && (
            <Anchor component={Link} href={next && isOurs(next) ? next : '/'} size="sm">
              You are signed in already: go on
            </Anchor>
          )}
          <Text size="sm" className="quiet">
            Just looking?{' '}
            <Anchor component={Link} href="/demo" size="sm" underline="always">
              Try the demo
            </Anchor>
            , without an account.
          </Text>
        </Stack>
      </form>
    </Narrow>
  );
}
