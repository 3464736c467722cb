import { Button, Group, List, Modal, Text } from '@mantine/core';

/** Says what is kept of something that was erased. */
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
        The log is never rewritten, so these remain:
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
