import { Anchor, Button, Stack, Text, Title } from '@mantine/core';
import { useState } from 'react';
import { Link } from 'wouter';

import { takeDestination } from '../../session/destination';
import { signIn } from '../../session/session';
import { useSearch } from '../../url';
import { Narrow } from './Narrow';
import { post } from './post';

/** The page of a sign-in link. It asks for a click, because mail scanners open links, too. */
export default function Verify() {
  const [{ token }] = useSearch();
  const [error, setError] = useState<string>();
  const [busy, setBusy] = useState(false);

  const verify = async () => {
    setBusy(true);
    const { data, error } = await post<{ token: string }>('/api/auth/verify-magic-link', { token });
    if (data) {
      signIn(data.token);
      // A full page load, so that nothing of the previous user is left. The link does not stay in the history.
      location.replace(takeDestination());
      return;
    }
    setBusy(false);
    setError(error);
  };

  return (
    <Narrow title="Sign in">
      <Stack gap="md">
        <Title order={1}>{error ? "Couldn't sign you in" : 'Welcome'}</Title>
        {token && !error && (
          <>
            <Text size="sm">Click the button to sign in on this device.</Text>
            <Button onClick={() => void verify()} loading={busy} autoFocus>
              Sign in
            </Button>
          </>
        )}
        {error && (
          <Text size="sm" role="alert">
            {error}
          </Text>
        )}
        {!token && <Text size="sm">This sign-in link is incomplete. Open the full link from your email.</Text>}
        {(error || !token) && (
          <Anchor component={Link} href="/login" size="sm">
            Request a new link
          </Anchor>
        )}
      </Stack>
    </Narrow>
  );
}
