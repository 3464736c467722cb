import { Group, Text } from '@mantine/core';
import { IconCircleCheck, IconClockPause, IconPlugConnectedX } from '@tabler/icons-react';

import { plural } from '../../format';
import { When } from '../../time';
import type { Destination } from './queries';

const states = {
  CLOSED: { word: 'Healthy', icon: IconCircleCheck, color: 'var(--success)' },
  HALF_OPEN: { word: 'Testing recovery with one delivery', icon: IconClockPause, color: 'var(--pending)' },
  OPEN: { word: 'Paused', icon: IconPlugConnectedX, color: 'var(--failed)' },
} as const;

/** The health of a destination, and the time of the next attempt while it is paused. */
export function Circuit({ of }: { of: Destination }) {
  const { word, icon: StateIcon, color } = states[of.circuit];
  const paused = of.circuits.filter(({ state }) => state !== 'CLOSED');
  const failures = Math.max(0, ...paused.map(({ failures }) => failures));
  const probe = paused.flatMap(({ probeAt }) => probeAt ?? []).sort()[0];
  return (
    <Group gap={6} wrap="nowrap" c={color}>
      <StateIcon size={16} aria-hidden style={{ flexShrink: 0 }} />
      <Text span size="sm" c={color}>
        {word}
        {failures > 0 && ` after ${plural(failures, 'consecutive failure')}`}
        {probe && (
          <>
            . Next attempt <When at={probe} />
          </>
        )}
      </Text>
    </Group>
  );
}
