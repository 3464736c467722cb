import { Button } from '@mantine/core';
import { IconMapQuestion } from '@tabler/icons-react';
import { Link } from 'wouter';

import { Empty } from './Empty';

/** Also what another organization's things look like. */
export function NotFound({ what = 'page' }: { what?: string }) {
  return (
    <Empty
      icon={IconMapQuestion}
      title={`There is no such ${what}`}
      action={
        <Button component={Link} href="/">
          Go home
        </Button>
      }
    >
      The address may be mistyped, or it belongs to somebody else.
    </Empty>
  );
}
