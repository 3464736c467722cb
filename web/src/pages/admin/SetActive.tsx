import { Button, Group, Text } from '@mantine/core';
import { useState } from 'react';

import { plural } from '../../format';
import { Confirm } from '../../ui/Confirm';

type Props = {
  chosen: ReadonlySet<string>;
  /** The kind of row: `organization`, `provider`. */
  noun: string;
  /** The verb that makes one active: `Reactivate`. */
  activate: string;
  /** The consequences of both, in a sentence each. */
  means: { activate: string; deactivate: string };
  /** Sets one. After false, a failure, the rest is skipped. */
  set: (id: string, isActive: boolean) => Promise<boolean>;
  /** Runs at the end, also after a failure. */
  done: () => void;
  clear: () => void;
};

/** Activates or deactivates the selected rows of a list, one after the other. */
export function SetActive({ chosen, noun, activate, means, set, done, clear }: Props) {
  const [asked, setAsked] = useState<boolean>();
  const [count, setCount] = useState<number>();
  const label = asked ? activate : 'Deactivate';
  const run = async (isActive: boolean) => {
    setCount(0);
    for (const id of chosen) {
      if (!(await set(id, isActive))) break;
      setCount((before) => (before ?? 0) + 1);
    }
    setCount(undefined);
    setAsked(undefined);
    clear();
    done();
  };
  if (chosen.size === 0) return null;
  return (
    <Group mb="sm" gap="xs" role="status">
      <Text size="sm">{plural(chosen.size, noun)} selected</Text>
      <Button size="xs" variant="default" onClick={() => setAsked(true)}>
        {activate}
      </Button>
      <Button size="xs" variant="default" c="var(--failed)" onClick={() => setAsked(false)}>
        Deactivate
      </Button>
      <Button size="xs" variant="subtle" onClick={clear}>
        Clear selection
      </Button>
      <Confirm
        opened={asked !== undefined}
        close={() => setAsked(undefined)}
        title={`${label} ${plural(chosen.size, noun)}`}
        label={count === undefined ? label : `${count} of ${chosen.size}`}
        danger={!asked}
        typed={asked || chosen.size === 1 ? undefined : String(chosen.size)}
        busy={count !== undefined}
        run={() => void run(asked === true)}
      >
        {asked ? means.activate : means.deactivate}
      </Confirm>
    </Group>
  );
}
