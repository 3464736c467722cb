import { Button } from '@mantine/core';
import { IconMapQuestion } from '@tabler/icons-react';
import { Link } from 'wouter';

import { Empty } from './Empty';

/** Also shown for data of other organizations. */
export function NotFound({ what = 'Page' }: { what?: string }) {
  return (
    <Empty
      icon={IconMapQuestion}
      title={`${what} not found`}
      action={
        <Button component={Link} href="/">
          Go home
        </Button>
      }
    >
      The address may be wrong, or you may not have access.
    </Empty>
  );
}
