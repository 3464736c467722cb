import { Center, Paper, Stack } from '@mantine/core';
import { type ReactNode, useEffect } from 'react';
import { Link } from 'wouter';

import { Logo } from '../../ui/Logo';

/** A narrow page in the middle of the window, for visitors who are not signed in. */
export function Narrow({ title, children }: { title: string; children: ReactNode }) {
  useEffect(() => {
    document.title = `${title} · Hookledger`;
  }, [title]);
  return (
    <Center mih="100dvh" p="md" component="main">
      <Stack w="100%" maw={400} gap="lg">
        <Link href="/" aria-label="Hookledger: home" style={{ textDecoration: 'none' }}>
          <Logo />
        </Link>
        <Paper withBorder p="lg" bg="var(--surface)">
          {children}
        </Paper>
      </Stack>
    </Center>
  );
}
