import { Kbd, Modal, Table } from '@mantine/core';
import { useDisclosure, useHotkeys } from '@mantine/hooks';

import { useCommands } from './commands';

const everywhere = [
  ['Ctrl K', 'Go to a page'],
  ['?', 'Show keyboard shortcuts'],
  ['Esc', 'Close'],
] as const;

/** The list of keyboard shortcuts, opened by `?`. */
export function Keys() {
  const [opened, { open, close }] = useDisclosure();
  const commands = useCommands();
  useHotkeys([
    ['shift+?', open],
    ['?', open],
  ]);
  const rows = [...commands.flatMap(({ hotkey, label }) => (hotkey ? [[hotkey, label] as const] : [])), ...everywhere];
  return (
    <Modal opened={opened} onClose={close} title="Keyboard shortcuts">
      <Table withRowBorders={false}>
        <Table.Tbody>
          {rows.map(([key, label]) => (
            <Table.Tr key={key}>
              <Table.Td w={100}>
                <Kbd>{key}</Kbd>
              </Table.Td>
              <Table.Td>{label}</Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Modal>
  );
}
