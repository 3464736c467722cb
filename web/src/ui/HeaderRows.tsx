import { ActionIcon, Anchor, Group, Stack, TextInput } from '@mantine/core';
import { IconPlus, IconTrash } from '@tabler/icons-react';

export type HeaderRow = { name: string; value: string };

type Props = {
  of: readonly HeaderRow[];
  onChange: (headers: HeaderRow[]) => void;
  most: number;
  /** The label of the button that adds a header. */
  add: string;
};

/** Fields for HTTP headers, each a name and a value. */
export function HeaderRows({ of, onChange, most, add }: Props) {
  const put = (index: number, change: Partial<HeaderRow>) =>
    onChange(of.map((header, at) => (at === index ? { ...header, ...change } : header)));
  return (
    <Stack gap={6}>
      {of.map(({ name, value }, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a row has no name of its own while it is typed
        <Group key={index} gap="xs" wrap="nowrap">
          <TextInput
            size="xs"
            flex={2}
            aria-label={`Name of header ${index + 1}`}
            placeholder="x-api-key"
            value={name}
            onChange={(event) => put(index, { name: event.currentTarget.value.trim() })}
          />
          <TextInput
            size="xs"
            flex={3}
            aria-label={`Value of header ${index + 1}`}
            placeholder="value"
            autoComplete="off"
            value={value}
            onChange={(event) => put(index, { value: event.currentTarget.value })}
          />
          <ActionIcon
            variant="subtle"
            color="gray"
            aria-label={`Remove header ${index + 1}`}
            onClick={() => onChange(of.filter((_, at) => at !== index))}
          >
            <IconTrash size={16} />
          </ActionIcon>
        </Group>
      ))}
      {of.length < most && (
        <Anchor component="button" type="button" size="sm" onClick={() => onChange([...of, { name: '', value: '' }])}>
          <Group gap={4}>
            <IconPlus size={14} aria-hidden /> {add}
          </Group>
        </Anchor>
      )}
    </Stack>
  );
}
