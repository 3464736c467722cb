import { Skeleton, Stack } from '@mantine/core';
import { Skeletons } from './Skeletons';

/** In the place of a page that is on its way: nothing jumps when it arrives. */
export function PageLoading({ rows = 8 }: { rows?: number }) {
  return (
    <Stack p="md" gap="sm" role="status" aria-label="Loading">
      <Skeleton height={28} width={200} />
      <Skeleton height={72} />
      <Skeletons rows={rows} height={36} />
    </Stack>
  );
}
