import { Button, Center, Stack } from '@mantine/core';

import { ErrorCard } from './ErrorCard';
import { Skeletons } from './Skeletons';
import type { List } from './useList';

/** The end of a list: loading, an error, or a button for more. */
export function ListEnd({ of }: { of: List<unknown> }) {
  if (of.error) return <ErrorCard error={of.error} again={of.rows.length > 0 ? of.more : of.reload} />;
  if (of.isFirst) {
    return (
      <Stack gap="xs" py="xs" role="status" aria-label="Loading">
        <Skeletons rows={8} height={36} />
      </Stack>
    );
  }
  if (!of.hasMore) return null;
  return (
    <Center py="md">
      <Button variant="default" onClick={of.more} loading={of.fetching}>
        Show more
      </Button>
    </Center>
  );
}
