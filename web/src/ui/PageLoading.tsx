import { Skeleton, Stack } from '@mantine/core';
import { Skeletons } from './Skeletons';

/** Replaces a page that is loading, at the same size, so that nothing jumps. */
export function PageLoading({ rows = 8 }: { rows?: number }) {
  return (
    <Stack p="md" gap="sm" role="status" aria-label="Loading">
      <Skeleton height={28} width={200} />
      <Skeleton height={72} />
      <Skeletons rows={rows} height={36} />
    </Stack>
  );
}
