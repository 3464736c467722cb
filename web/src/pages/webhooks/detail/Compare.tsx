// Compares a webhook with the previous one of its event type.
import { Anchor, Skeleton, Stack, Text } from '@mantine/core';
import { useMemo } from 'react';
import { Link } from 'wouter';

import { useAsk } from '../../../api/ask';
import { graphql } from '../../../api/graphql';
import { useOrganization } from '../../../session/viewer';
import { When } from '../../../time';
import { ErrorCard } from '../../../ui/ErrorCard';
import { Differences } from '../../../ui/payload/Differences';
import { parse } from '../../../ui/payload/json';
import type { Webhook } from './queries';
import { useBody } from './useWebhook';

const PreviousQuery = graphql(`
  query PreviousOfType($slug: String!, $webhookId: UUID!) {
    organization(slug: $slug) {
      id
      webhook(webhookId: $webhookId) { id previousOfType { id webhookId receivedAt } }
    }
  }
`);

/** Larger ones would keep the window busy for too long. */
const MOST_BYTES = 8 << 20;

export function Compare({ of: webhook }: { of: Webhook }) {
  const { slug, base } = useOrganization();
  const { data, error, again } = useAsk(
    PreviousQuery,
    webhook.eventType ? { slug, webhookId: webhook.webhookId } : null,
  );
  const previous = data?.organization?.webhook?.previousOfType;
  const large = webhook.bodySize > MOST_BYTES;
  const mine = useBody(slug, previous && !large ? webhook.webhookId : undefined);
  const other = useBody(slug, previous && !large ? previous.webhookId : undefined);
  const [after, before] = useMemo(
    () => [mine.body, other.body].map((body) => (body?.kind === 'text' ? parse(body.text) : undefined)),
    [mine.body, other.body],
  );
  const failed = error ?? mine.error ?? other.error;
  if (!webhook.eventType)
    return (
      <Text size="sm" className="quiet">
        This webhook has no event type, so there is nothing to compare it with.
      </Text>
    );
  if (failed) return <ErrorCard error={failed} again={again} />;
  if (large)
    return (
      <Text size="sm" className="quiet">
        This webhook is too large to compare here.
      </Text>
    );
  if (!data) return <Skeleton height={160} />;
  if (!previous)
    return (
      <Text size="sm" className="quiet">
        No earlier webhook of this event type among the provider's last 2,000.
      </Text>
    );
  return (
    <Stack gap="xs">
      <Text size="sm">
        Compared with the previous webhook of this event type, received{' '}
        <Anchor component={Link} href={`${base}/webhooks/${previous.webhookId}`}>
          <When at={previous.receivedAt} />
        </Anchor>
      </Text>
      {!mine.body || !other.body ? (
        <Skeleton height={160} />
      ) : after === undefined || before === undefined ? (
        <Text size="sm" className="quiet">
          One of the two isn't JSON, or its body is no longer kept.
        </Text>
      ) : (
        <Differences before={before} after={after} />
      )}
    </Stack>
  );
}
