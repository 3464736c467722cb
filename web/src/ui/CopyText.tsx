import { ActionIcon, CopyButton, Group, Text, Tooltip } from '@mantine/core';
import { IconCheck, IconCopy } from '@tabler/icons-react';
import { useState } from 'react';

import classes from './CopyText.module.css';

/** Text with a button to copy it. `shown` is a shorter form for the screen. */
export function CopyText({
  value,
  shown,
  label = 'Copy',
  mono = true,
}: {
  value: string;
  shown?: string;
  label?: string;
  mono?: boolean;
}) {
  return (
    <Group gap={4} wrap="nowrap" miw={0}>
      <Text span size="sm" className={mono ? 'mono cut' : 'cut'} title={shown ? value : undefined}>
        {shown ?? value}
      </Text>
      <Copy value={value} label={label} />
    </Group>
  );
}

export function Copy({ value, label = 'Copy' }: { value: string; label?: string }) {
  return (
    <CopyButton value={value} timeout={1500}>
      {({ copied, copy }) => (
        <Tooltip label={copied ? 'Copied' : label}>
          <ActionIcon
            variant="subtle"
            color={copied ? 'teal' : 'gray'}
            size="sm"
            aria-label={copied ? 'Copied' : label}
            onClick={(event) => {
              event.stopPropagation();
              copy();
            }}
          >
            {copied ? <IconCheck size={14} /> : <IconCopy size={14} />}
          </ActionIcon>
        </Tooltip>
      )}
    </CopyButton>
  );
}

/** Only a button, which is cheap enough for many rows. */
export function QuickCopy({ value, label = 'Copy' }: { value: string; label?: string }) {
  const [copied, setCopied] = useState(false);
  const copy = () => {
    void navigator.clipboard?.writeText(value).then(() => {
      setCopied(true);
      setTimeout(() => setCopied(false), 1500);
    });
  };
  return (
    <button
      type="button"
      className={classes.quick}
      title={copied ? 'Copied' : label}
      aria-label={copied ? 'Copied' : label}
      onClick={copy}
    >
      {copied ? <IconCheck size={14} aria-hidden /> : <IconCopy size={14} aria-hidden />}
    </button>
  );
}
