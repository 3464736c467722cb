import { Group, Text } from '@mantine/core';
import { IconCircleCheck, IconClockPause, IconPlugConnectedX } from '@tabler/icons-react';

import { plural } from '../../format';
import { When } from '../../time';
import type { Destination } from './queries';

const states = {
  CLOSED: { word: 'Deliveries go through', icon: IconCircleCheck, color: 'var(--success)' },
  HALF_OPEN: { word: 'One delivery tries whether it works again', icon: IconClockPause, color: 'var(--pending)' },
  OPEN: { word: 'Paused, since it failed so often', icon: IconPlugConnectedX, color: 'var(--failed)' },
} as const;

/** Whether attempts at a destination go through, and when they will. */
export function Circuit({ of }: { of: Destination }) {
  const { word, icon: Symbol, color } = states[of.circuit];
  const paused = of.circuits.filter(({ state }) => state !== 'CLOSED');
  const failures = Math.max(0, ...paused.map(({ failures }) => failures));
  const probe = paused.flatMap(({ probeAt }) => probeAt ?? []).sort()[0];
  return (
    <Group gap={6} wrap="nowrap" c={color}>
      <Symbol size={16} aria-hidden style={{ flexShrink: 0 }} />
      <Text span size="sm" c={color}>
        {word}
        {failures > 0 && ` (${plural(failures, 'failure')} in a row)`}
        {probe && (
          <>
            ; the next try <When at={probe} />
          </>
        )}
      </Text>
    </Group>
  );
}
