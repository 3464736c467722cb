import { Button, Group, Modal, Stack, Text, TextInput } from '@mantine/core';
import { type ReactNode, useId, useState } from 'react';

type Props = {
  opened: boolean;
  close: () => void;
  title: string;
  /** The consequences. */
  children: ReactNode;
  /** On the button. */
  label: string;
  danger?: boolean;
  busy?: boolean;
  error?: string;
  /** A text that has to be typed first, for actions that cannot be undone. */
  typed?: string;
  /** Asks for a reason, which the log records. */
  withReason?: boolean;
  run: (reason: string | undefined) => void;
};

/** Asks before an action that is hard to undo. */
export function Confirm(props: Props) {
  return (
    <Modal opened={props.opened} onClose={props.close} title={props.title} centered>
      <Content {...props} />
    </Modal>
  );
}

function Content({ close, children, label, danger, busy, error, typed, withReason, run }: Props) {
  const [written, setWritten] = useState('');
  const [reason, setReason] = useState('');
  const described = useId();
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        run(reason.trim() || undefined);
      }}
    >
      <Stack gap="md">
        <Text component="div" size="sm" id={described}>
          {children}
        </Text>
        {typed && (
          <TextInput
            label={`Type ${typed} to confirm`}
            value={written}
            autoComplete="off"
            data-autofocus
            onChange={(event) => setWritten(event.currentTarget.value)}
          />
        )}
        {withReason && (
          <TextInput
            label="Reason"
            description="Optional. Recorded in the audit trail with your name."
            maxLength={500}
            value={reason}
            data-autofocus
            onChange={(event) => setReason(event.currentTarget.value)}
          />
        )}
        {error && (
          <Text size="sm" c="var(--failed)" role="alert">
            {error}
          </Text>
        )}
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={close}>
            Cancel
          </Button>
          <Button
            type="submit"
            color={danger ? 'red' : undefined}
            loading={busy}
            disabled={Boolean(typed) && written !== typed}
            aria-describedby={described}
          >
            {label}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
