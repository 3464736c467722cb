// The statuses of a webhook: the only table of their words, colours and icons. The list, filters, chips, histogram and
// detail all use it.
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

export type WebhookStatus = 'pending' | 'processing' | 'success' | 'failed' | 'dead' | 'rejected';

type Told = {
  word: string;
  /** One sentence, for a tooltip. */
  means: string;
  icon: Icon;
  color: string;
  /** The field of a bucket of the server's histogram that counts it. */
  bucket: 'pending' | 'processing' | 'success' | 'failed' | 'deadLettered' | 'rejected';
};

export const webhookStatuses: Record<WebhookStatus, Told> = {
  pending: {
    word: 'Pending',
    means: 'Waiting for the next attempt',
    icon: IconCircleDashed,
    color: 'var(--pending)',
    bucket: 'pending',
  },
  processing: {
    word: 'Processing',
    means: 'An attempt is in progress',
    icon: IconLoader2,
    color: 'var(--processing)',
    bucket: 'processing',
  },
  success: {
    word: 'Success',
    means: 'Processed successfully',
    icon: IconCircleCheckFilled,
    color: 'var(--success)',
    bucket: 'success',
  },
  failed: {
    word: 'Failed',
    means: 'The last attempt failed; a retry is scheduled',
    icon: IconCircleXFilled,
    color: 'var(--failed)',
    bucket: 'failed',
  },
  dead: {
    word: 'Dead letter',
    means: 'All attempts failed; needs attention',
    icon: IconSkull,
    color: 'var(--dead)',
    bucket: 'deadLettered',
  },
  rejected: {
    word: 'Rejected',
    means: 'Rejected on receipt; not processed',
    icon: IconShieldX,
    color: 'var(--rejected)',
    bucket: 'rejected',
  },
};

export const allStatuses = Object.keys(webhookStatuses) as WebhookStatus[];

/** The status, from the fields of a webhook. */
export function statusOf(webhook: {
  status: 'PENDING' | 'PROCESSING' | 'SUCCESS' | 'FAILED';
  deadLetteredAt?: string | null;
  rejection?: string | null;
}): WebhookStatus {
  if (webhook.rejection) return 'rejected';
  if (webhook.status === 'FAILED') return webhook.deadLetteredAt ? 'dead' : 'failed';
  return webhook.status.toLowerCase() as WebhookStatus;
}

/** An icon, a colour and a word, so that nobody depends on one of them. */
export function Status({ value }: { value: WebhookStatus }) {
  const { word, icon: StatusIcon, color, means } = webhookStatuses[value];
  return (
    <Group gap={6} wrap="nowrap" title={means} c={color}>
      <StatusIcon size={16} aria-hidden />
      <Text span size="sm" fw={500} c={color} style={{ whiteSpace: 'nowrap' }}>
        {word}
      </Text>
    </Group>
  );
}
