// Where a webhook stands: an icon, a colour and a word, so that none of them alone has to tell it.
import { Group, Text } from '@mantine/core';
import {
  type Icon,
  IconCircleCheckFilled,
  IconCircleDashed,
  IconCircleXFilled,
  IconLoader2,
  IconShieldX,
  IconSkull,
} from '@tabler/icons-react';

export type Standing = 'pending' | 'processing' | 'success' | 'failed' | 'dead' | 'rejected';

export const standings: Record<Standing, { word: string; icon: Icon; color: string; means: string }> = {
  pending: {
    word: 'Pending',
    icon: IconCircleDashed,
    color: 'var(--pending)',
    means: 'Accepted; waits for its next attempt',
  },
  processing: { word: 'Processing', icon: IconLoader2, color: 'var(--processing)', means: 'An attempt is running' },
  success: { word: 'Success', icon: IconCircleCheckFilled, color: 'var(--success)', means: 'Processed' },
  failed: {
    word: 'Failed',
    icon: IconCircleXFilled,
    color: 'var(--failed)',
    means: 'The last attempt failed; another one follows',
  },
  dead: {
    word: 'Dead letter',
    icon: IconSkull,
    color: 'var(--dead)',
    means: 'All attempts failed; it waits for a person',
  },
  rejected: {
    word: 'Rejected',
    icon: IconShieldX,
    color: 'var(--rejected)',
    means: 'Refused at the door; never processed',
  },
};

/** What the fields of a webhook say together. */
export function standing(webhook: {
  status: 'PENDING' | 'PROCESSING' | 'SUCCESS' | 'FAILED';
  deadLetteredAt?: string | null;
  rejection?: string | null;
}): Standing {
  if (webhook.rejection) return 'rejected';
  if (webhook.status === 'FAILED') return webhook.deadLetteredAt ? 'dead' : 'failed';
  return webhook.status.toLowerCase() as Standing;
}

export function Status({ value, compact = false }: { value: Standing; compact?: boolean }) {
  const { word, icon: Symbol, color, means } = standings[value];
  return (
    <Group gap={6} wrap="nowrap" title={means} c={color}>
      <Symbol size={16} aria-hidden={!compact} aria-label={compact ? word : undefined} />
      {!compact && (
        <Text span size="sm" fw={500} c={color}>
          {word}
        </Text>
      )}
    </Group>
  );
}
