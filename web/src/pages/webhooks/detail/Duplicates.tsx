// Duplicates with a different body, which can be viewed and delivered.
import { Anchor, Button, Group, Paper, Skeleton, Stack, Text } from '@mantine/core';
import { useState } from 'react';
import { Link } from 'wouter';

import { useAsk } from '../../../api/ask';
import { graphql, type ResultOf } from '../../../api/graphql';
import { bytes } from '../../../format';
import { useOrganization } from '../../../session/viewer';
import { When } from '../../../time';
import { Confirm } from '../../../ui/Confirm';
import { Copy } from '../../../ui/CopyText';
import { ErrorCard } from '../../../ui/ErrorCard';
import { fromBase64 } from '../../../ui/payload/bytes';
import { HexView } from '../../../ui/payload/HexView';
import { RawText } from '../../../ui/payload/RawText';
import { beginning, visible } from '../../../ui/payload/visible';
import { useAct } from '../../../ui/useAct';
import type { Webhook } from './queries';

const DuplicatesQuery = graphql(`
  query DuplicateBodies($slug: String!, $webhookId: UUID!) {
    organization(slug: $slug) {
      id
      webhook(webhookId: $webhookId) {
        id
        duplicateBodies { receivedAt bodySha256 bodySize contentType bodyRemoval { kind } deliveredAs { id webhookId } }
      }
    }
  }
`);

const BodiesQuery = graphql(`
  query DuplicateBodyTexts($slug: String!, $webhookId: UUID!) {
    organization(slug: $slug) { id webhook(webhookId: $webhookId) { id duplicateBodies { bodySha256 rawBody } } }
  }
`);

const BytesQuery = graphql(`
  query DuplicateBodyBytes($slug: String!, $webhookId: UUID!) {
    organization(slug: $slug) { id webhook(webhookId: $webhookId) { id duplicateBodies { bodySha256 rawBodyBase64 } } }
  }
`);

const Deliver = graphql(`
  mutation DeliverDuplicate($webhookId: ID!, $bodySha256: String!, $reason: String) {
    deliverDuplicate(input: { webhookId: $webhookId, bodySha256: $bodySha256, reason: $reason }) { webhook { id webhookId } }
  }
`);

type Duplicate = NonNullable<
  NonNullable<ResultOf<typeof DuplicatesQuery>['organization']>['webhook']
>['duplicateBodies'][number];

export function Duplicates({ of: webhook }: { of: Webhook }) {
  const { slug } = useOrganization();
  const { data, error, again } = useAsk(DuplicatesQuery, { slug, webhookId: webhook.webhookId });
  if (error) return <ErrorCard error={error} again={again} />;
  if (!data) return <Skeleton height={160} role="status" aria-label="Loading the duplicates" />;
  const bodies = data.organization?.webhook?.duplicateBodies ?? [];
  return (
    <Stack gap="sm">
      <Text size="sm">
        {bodies.length === 0
          ? 'The bodies of these duplicates were not kept.'
          : 'The provider sent this event again with a different body. Only the first body was processed. Each different body is kept once, up to 16.'}
      </Text>
      {bodies.map((body) => (
        <One key={body.bodySha256} of={body} webhook={webhook} done={again} />
      ))}
    </Stack>
  );
}

function One({ of: duplicate, webhook, done }: { of: Duplicate; webhook: Webhook; done: () => void }) {
  const { base, slug } = useOrganization();
  const [shown, setShown] = useState(false);
  const [asking, setAsking] = useState(false);
  const deliver = useAct(Deliver, { quiet: true });
  const run = async (reason: string | undefined) => {
    const variables = { webhookId: webhook.id, bodySha256: duplicate.bodySha256, reason: reason ?? null };
    if (!(await deliver.act(variables, 'Delivering as a new webhook'))) return;
    setAsking(false);
    done();
  };
  return (
    <Paper component="section" withBorder p="sm" aria-label="Duplicate with a different body">
      <Stack gap="xs">
        <Group justify="space-between" gap="xs">
          <Text size="sm" fw={600}>
            Duplicate with a different body
          </Text>
          <When at={duplicate.receivedAt} exact />
        </Group>
        <Text size="xs" className="quiet">
          {bytes(duplicate.bodySize)} <bdi>{visible(beginning(duplicate.contentType ?? 'No content type', 100))}</bdi>
        </Text>
        <Group gap={4} wrap="nowrap">
          <Text size="xs" className="mono cut" title={duplicate.bodySha256}>
            {duplicate.bodySha256}
          </Text>
          <Copy value={duplicate.bodySha256} label="Copy SHA-256 of the duplicate's body" />
        </Group>
        {duplicate.bodyRemoval ? (
          <Text size="sm" className="quiet">
            {duplicate.bodyRemoval.kind === 'ERASURE' ? 'This body was erased.' : 'This body is no longer kept.'}
          </Text>
        ) : (
          <Group gap="xs">
            <Button size="compact-xs" variant="default" aria-expanded={shown} onClick={() => setShown(!shown)}>
              {shown ? 'Hide body' : 'View body'}
            </Button>
            {!duplicate.deliveredAs && (
              <Button size="compact-xs" variant="default" onClick={() => setAsking(true)}>
                Deliver this body…
              </Button>
            )}
          </Group>
        )}
        {duplicate.deliveredAs && (
          <Anchor component={Link} size="sm" href={`${base}/webhooks/${duplicate.deliveredAs.webhookId}`}>
            Delivered as a new webhook
          </Anchor>
        )}
        {shown && <Bytes slug={slug} webhookId={webhook.webhookId} bodySha256={duplicate.bodySha256} />}
      </Stack>
      <Confirm
        opened={asking}
        close={() => setAsking(false)}
        title="Deliver this body"
        label="Deliver as a new webhook"
        withReason
        busy={deliver.busy}
        error={deliver.error}
        run={(reason) => void run(reason)}
      >
        This body becomes a webhook with its own ID and is processed like any other. It counts toward the monthly limit.
        The original webhook stays as it is. This can be done once and can't be undone.
      </Confirm>
    </Paper>
  );
}

function Bytes({ slug, webhookId, bodySha256 }: { slug: string; webhookId: string; bodySha256: string }) {
  const { data, error, again } = useAsk(BodiesQuery, { slug, webhookId });
  const text = data?.organization?.webhook?.duplicateBodies.find((body) => body.bodySha256 === bodySha256)?.rawBody;
  const binary = useAsk(BytesQuery, data && typeof text !== 'string' ? { slug, webhookId } : null);
  if (error) return <ErrorCard error={error} again={again} />;
  if (typeof text === 'string')
    return text === '' ? (
      <Text size="sm" className="quiet">
        The body is empty.
      </Text>
    ) : (
      <RawText text={text} label="The duplicate's body" most={320} />
    );
  if (binary.error) return <ErrorCard error={binary.error} again={binary.again} />;
  if (!binary.data) return <Skeleton height={120} role="status" aria-label="Loading the body" />;
  const base64 = binary.data.organization?.webhook?.duplicateBodies.find(
    (body) => body.bodySha256 === bodySha256,
  )?.rawBodyBase64;
  if (typeof base64 !== 'string')
    return (
      <Text size="sm" className="quiet">
        This body is no longer kept.
      </Text>
    );
  return <HexView bytes={fromBase64(base64)} label="Bytes of the duplicate's body" most={320} />;
}
