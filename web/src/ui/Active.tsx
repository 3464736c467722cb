import { Badge } from '@mantine/core';

export function Active({ is }: { is: boolean }) {
  return (
    <Badge variant={is ? 'light' : 'outline'} color={is ? 'teal' : 'gray'} tt="none" c={is ? 'var(--success)' : 'var(--quiet)'}>
      {is ? 'Active' : 'Deactivated'}
    </Badge>
  );
}
