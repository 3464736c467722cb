import { Box, Group, Text, Title } from '@mantine/core';
import { type ReactNode, useEffect } from 'react';

/**
 * A page: its title, what can be done on it, and its content. The window is named after it. One that fills the window
 * scrolls in a part of its own, like a long list.
 */
export function Page({
  title,
  lead,
  actions,
  fills = false,
  children,
}: {
  title: string;
  lead?: ReactNode;
  actions?: ReactNode;
  fills?: boolean;
  children: ReactNode;
}) {
  useEffect(() => {
    document.title = `${title} · Hookledger`;
  }, [title]);
  return (
    <Box
      p={fills ? { base: 'sm', sm: 'md' } : { base: 'sm', sm: 'lg' }}
      maw={fills ? undefined : 1600}
      mx="auto"
      display={fills ? 'flex' : undefined}
      h={fills ? 'calc(100dvh - 52px)' : undefined}
      mih={fills ? 520 : undefined}
      style={fills ? { flexDirection: 'column' } : undefined}
    >
      <Group justify="space-between" mb={fills ? 'sm' : 'md'} gap="sm" mih={36}>
        <div>
          <Title order={1}>{title}</Title>
          {lead && (
            <Text size="sm" className="quiet" component="div">
              {lead}
            </Text>
          )}
        </div>
        {actions && <Group gap="xs">{actions}</Group>}
      </Group>
      {children}
    </Box>
  );
}
