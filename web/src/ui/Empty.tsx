import { Center, Stack, Text, ThemeIcon, Title } from '@mantine/core';
import type { Icon } from '@tabler/icons-react';
import type { ReactNode } from 'react';

/** Replaces an empty list: says what will appear here, and how to make it appear. */
export function Empty({
  icon: EmptyIcon,
  title,
  children,
  action,
}: {
  icon: Icon;
  title: string;
  children?: ReactNode;
  action?: ReactNode;
}) {
  return (
    <Center py={64} px="md">
      <Stack align="center" gap="sm" maw={520} ta="center">
        <ThemeIcon size={48} radius="xl" variant="light" aria-hidden>
          <EmptyIcon size={24} />
        </ThemeIcon>
        <Title order={2}>{title}</Title>
        {children && (
          <Text component="div" size="sm" className="quiet">
            {children}
          </Text>
        )}
        {action}
      </Stack>
    </Center>
  );
}
