import { Button, Group, List, Modal, Text } from '@mantine/core';

/** Lists the data that remains after an erasure. */
export function Remains({
  of: remains,
  title,
  close,
}: {
  of: readonly string[] | undefined;
  title: string;
  close: () => void;
}) {
  return (
    <Modal opened={Boolean(remains)} onClose={close} title={title} centered>
      <Text size="sm" mb="xs">
        These are not erased:
      </Text>
      <List size="sm">
        {remains?.map((what) => (
          <List.Item key={what}>{what}</List.Item>
        ))}
      </List>
      <Group justify="flex-end" mt="md">
        <Button onClick={close}>Done</Button>
      </Group>
    </Modal>
  );
}
