// The body as a tree, as raw text, or as hex. It can be copied and downloaded.
import { Button, Group, SegmentedControl, Skeleton, Stack, Text } from '@mantine/core';
import { IconDownload, IconFileOff } from '@tabler/icons-react';
import { useMemo } from 'react';

import { bytes } from '../../../format';
import { useOrganization } from '../../../session/viewer';
import { When } from '../../../time';
import { Copy } from '../../../ui/CopyText';
import { download } from '../../../ui/download';
import { Empty } from '../../../ui/Empty';
import { ErrorCard } from '../../../ui/ErrorCard';
import { HexView } from '../../../ui/payload/HexView';
import { JsonTree } from '../../../ui/payload/JsonTree';
import { parse } from '../../../ui/payload/json';
import { RawText } from '../../../ui/payload/RawText';
import { beginning, visible } from '../../../ui/payload/visible';
import { useSearch } from '../../../url';
import { type Body, bytesOf, type Webhook } from './queries';
import { useBody } from './useWebhook';

export function Payload({ of: webhook }: { of: Webhook }) {
  const { slug } = useOrganization();
  // A removed body is not requested, nor shown from a cache.
  const { body, error, again } = useBody(slug, webhook.bodyRemoval ? undefined : webhook.webhookId);
  if (error) return <ErrorCard error={error} again={again} />;
  if (webhook.bodyRemoval || body?.kind === 'gone') return <Gone of={webhook} />;
  if (!body) return <Skeleton height={300} role="status" aria-label="Loading the payload" />;
  if (webhook.bodySize === 0)
    return (
      <Text size="sm" className="quiet">
        The body is empty.
      </Text>
    );
  return <Shown key={webhook.webhookId} body={body} webhook={webhook} />;
}

function Gone({ of: { bodyRemoval: removal, bodySize, rejection } }: { of: Webhook }) {
  return (
    <Empty
      icon={IconFileOff}
      title={removal?.kind === 'ERASURE' ? 'The body was erased' : 'The body is no longer kept'}
    >
      {removal ? <Why of={removal} /> : rejection && 'Large bodies of rejected webhooks are not kept. '}
      Its size ({bytes(bodySize)}) and SHA-256 stay in the log.
    </Empty>
  );
}

function Why({ of: { at, kind, reason } }: { of: NonNullable<Webhook['bodyRemoval']> }) {
  return (
    <>
      {kind === 'ERASURE' ? 'Erased on request ' : 'Removed at the end of the retention period, '}
      <When at={at} size="inherit" />
      {reason && <span className="foreign">: {visible(beginning(reason, 500))}</span>}.{' '}
    </>
  );
}

function Shown({ body, webhook }: { body: Exclude<Body, { kind: 'gone' }>; webhook: Webhook }) {
  const [search, setSearch] = useSearch();
  const json = useMemo(() => (body.kind === 'text' ? parse(body.text) : undefined), [body]);
  const views = [...(json !== undefined ? ['tree'] : []), ...(body.kind === 'text' ? ['raw'] : []), 'bytes'];
  const view = search.view && views.includes(search.view) ? search.view : (views[0] ?? 'bytes');
  const words: Record<string, string> = { tree: 'Tree', raw: 'Raw', bytes: 'Hex' };
  const raw = useMemo(() => (view === 'bytes' ? bytesOf(body) : undefined), [view, body]);
  const save = () =>
    download(
      `webhook-${webhook.webhookId}.${json !== undefined ? 'json' : body.kind === 'text' ? 'txt' : 'bin'}`,
      bytesOf(body),
      'application/octet-stream',
    );
  return (
    <Stack gap="xs">
      <Group justify="space-between" gap="xs">
        <SegmentedControl
          size="xs"
          aria-label="Payload view"
          data={views.map((value) => ({ value, label: words[value] ?? value }))}
          value={view}
          onChange={(next) => setSearch({ view: next === views[0] ? '' : next }, { replace: true })}
        />
        <Group gap="xs">
          {json === undefined && body.kind === 'text' && (
            <Text size="xs" className="quiet">
              Not JSON
            </Text>
          )}
          {body.kind === 'bytes' && (
            <Text size="xs" className="quiet">
              Not UTF-8
            </Text>
          )}
          {body.kind === 'text' && <Copy value={body.text} label="Copy body" />}
          <Button
            size="compact-xs"
            variant="default"
            leftSection={<IconDownload size={14} aria-hidden />}
            onClick={save}
          >
            Download
          </Button>
        </Group>
      </Group>
      {view === 'tree' && json !== undefined && <JsonTree value={json} most={520} />}
      {view === 'raw' && body.kind === 'text' && <RawText text={body.text} label="Raw payload" most={520} />}
      {raw && <HexView bytes={raw} label="Bytes of the payload" most={520} />}
    </Stack>
  );
}
