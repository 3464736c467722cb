import { Box, Group, Text, Title } from '@mantine/core';
import { type ReactNode, useEffect } from 'react';

/** A page: its title, what can be done on it, and its content. The window is named after it. */
export function Page({ title, lead, actions, children }: { title: string; lead?: ReactNode; actions?: ReactNode; children: ReactNode }) {
  useEffect(() => {
    document.title = `${title} · Hookledger`;
  }, [title]);
  return (
    <Box p={{ base: 'sm', sm: 'lg' }} maw={1600} mx="auto">
      <Group justify="space-between" mb="md" gap="sm" mih={36}>
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
