import { Badge } from '@mantine/core';

/** `erased` users have no personal data any more. */
export function Active({ is, erased = false }: { is: boolean; erased?: boolean }) {
  return (
    <Badge
      miw="max-content"
      variant={is ? 'light' : 'outline'}
      color={is ? 'teal' : 'gray'}
      tt="none"
      c={is ? 'var(--success)' : 'var(--quiet)'}
    >
      {is ? 'Active' : erased ? 'Erased' : 'Deactivated'}
    </Badge>
  );
}
