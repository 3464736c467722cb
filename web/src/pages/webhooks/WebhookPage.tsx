// One webhook on a separate page, for links.
import { Anchor, Box } from '@mantine/core';
import { IconArrowLeft, IconChevronDown, IconChevronUp } from '@tabler/icons-react';
import { useEffect } from 'react';
import { Link, useLocation, useParams } from 'wouter';

import { useAsk } from '../../api/ask';
import { graphql } from '../../api/graphql';
import { useOrganization } from '../../session/viewer';
import { useOffer } from '../../ui/commands';
import { Detail } from './detail/Detail';
import { Act } from './detail/WebhookDrawer';

// Two, because `receivedFrom` includes the webhook itself.
const NeighboursQuery = graphql(`
  query Neighbours($slug: String!, $at: DateTime!) {
    organization(slug: $slug) {
      id
      newer: webhooks(filter: { receivedFrom: $at }, last: 2) { nodes { id webhookId } }
      older: webhooks(filter: { receivedTo: $at }, first: 1) { nodes { id webhookId } }
    }
  }
`);

const PlaceQuery = graphql(`
  query WebhookPlace($slug: String!, $webhookId: UUID!) {
    organization(slug: $slug) { id webhook(webhookId: $webhookId) { id receivedAt } }
  }
`);

export default function WebhookPage() {
  const { webhookId = '' } = useParams<{ webhookId: string }>();
  const { slug, base } = useOrganization();
  const [, go] = useLocation();
  useEffect(() => {
    document.title = `Webhook ${webhookId.slice(0, 8)} · Hookledger`;
  }, [webhookId]);
  const isId = /^[0-9a-f-]{36}$/i.test(webhookId);
  const place = useAsk(PlaceQuery, isId ? { slug, webhookId } : null);
  const at = place.data?.organization?.webhook?.receivedAt;
  const { data } = useAsk(NeighboursQuery, at ? { slug, at } : null);
  const to = (other: { webhookId: string } | undefined) =>
    other && (() => go(`${base}/webhooks/${other.webhookId}${location.search}`));
  const newer = to(data?.organization?.newer.nodes.find((each) => each.webhookId !== webhookId));
  const older = to(data?.organization?.older.nodes[0]);
  useOffer([
    { label: 'Older webhook', hotkey: 'j', run: () => older?.() },
    { label: 'Newer webhook', hotkey: 'k', run: () => newer?.() },
    { label: 'All webhooks', run: () => go(`${base}/webhooks`) },
  ]);
  return (
    <Box p={{ base: 'sm', sm: 'lg' }} maw={1100} mx="auto">
      <Anchor
        component={Link}
        href={`${base}/webhooks`}
        size="sm"
        mb="sm"
        display="inline-flex"
        style={{ alignItems: 'center', gap: 4 }}
      >
        <IconArrowLeft size={14} aria-hidden /> All webhooks
      </Anchor>
      <Detail
        webhookId={webhookId}
        order={1}
        actions={
          <>
            <Act label="Newer (k)" run={newer}>
              <IconChevronUp size={18} />
            </Act>
            <Act label="Older (j)" run={older}>
              <IconChevronDown size={18} />
            </Act>
          </>
        }
      />
    </Box>
  );
}
