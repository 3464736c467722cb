import { Group, Paper, type PaperProps, Title } from '@mantine/core';
import type { ReactNode } from 'react';

/** A bordered part of a page, with an optional title and actions. */
export function Card({
  title,
  actions,
  children,
  ...props
}: PaperProps & { title?: ReactNode; actions?: ReactNode; children: ReactNode }) {
  return (
    <Paper withBorder p="md" bg="var(--surface)" {...props}>
      {(title || actions) && (
        <Group justify="space-between" mb="sm" gap="xs">
          {title && <Title order={2}>{title}</Title>}
          {actions}
        </Group>
      )}
      {children}
    </Paper>
  );
}
