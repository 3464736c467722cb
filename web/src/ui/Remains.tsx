import { List, Text } from '@mantine/core';

/** What is kept of something that was erased. */
export function Remains({ of: remains }: { of: readonly string[] }) {
  return (
    <>
      <Text size="sm" mb="xs">
        What remains, since the log is never rewritten:
      </Text>
      <List size="sm">
        {remains.map((what) => (
          <List.Item key={what}>{what}</List.Item>
        ))}
      </List>
    </>
  );
}
