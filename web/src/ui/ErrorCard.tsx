import { Alert, Button, Group, Text } from '@mantine/core';
import { IconAlertTriangle } from '@tabler/icons-react';
import type { CombinedError } from 'urql';

import { requestId, sentence } from '../api/errors';

/** An error, and a button to try again. */
export function ErrorCard({
  error,
  again,
  title = "Couldn't load this",
}: {
  error: CombinedError | Error;
  again?: () => void;
  title?: string;
}) {
  const id = 'graphQLErrors' in error ? requestId(error) : undefined;
  return (
    <Alert color="red" variant="light" icon={<IconAlertTriangle aria-hidden />} title={title} m="md" role="alert">
      <Text size="sm">{sentence(error)}</Text>
      <Group mt="sm" gap="md">
        {again && (
          <Button variant="default" size="xs" onClick={again}>
            Try again
          </Button>
        )}
        {id && (
          <Text size="xs" className="quiet mono">
            Request {id}
          </Text>
        )}
      </Group>
    </Alert>
  );
}
