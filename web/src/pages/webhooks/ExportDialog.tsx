// Saves the matching webhooks as a file.
import { Button, Group, Modal, Progress, SegmentedControl, Stack, Text } from '@mantine/core';
import { useRef, useState } from 'react';

import { ask } from '../../api/ask';
import { sentence } from '../../api/errors';
import type { ResultOf } from '../../api/graphql';
import { count, plural } from '../../format';
import { useOrganization } from '../../session/viewer';
import { download } from '../../ui/download';
import { csv, json } from './export';
import type { ServerFilter } from './filter';
import { type WebhookRow, WebhooksQuery } from './queries';

const MOST = 10_000;
const PAGE = 1_000;

export function ExportDialog({
  opened,
  close,
  filter,
  filtered,
}: {
  opened: boolean;
  close: () => void;
  filter: ServerFilter;
  filtered: boolean;
}) {
  return (
    <Modal opened={opened} onClose={close} title="Export webhooks" closeOnClickOutside={false}>
      {opened && <Export filter={filter} filtered={filtered} close={close} />}
    </Modal>
  );
}

function Export({ filter, filtered, close }: { filter: ServerFilter; filtered: boolean; close: () => void }) {
  const { slug } = useOrganization();
  const [format, setFormat] = useState('csv');
  const [got, setGot] = useState<number>();
  const [told, setTold] = useState<string>();
  const stopped = useRef(false);
  const busy = got !== undefined && told === undefined;

  const go = async () => {
    stopped.current = false;
    setTold(undefined);
    setGot(0);
    const rows: WebhookRow[] = [];
    try {
      const more = await gather(slug, filter, rows, () => {
        setGot(rows.length);
        return !stopped.current;
      });
      if (stopped.current) {
        setGot(undefined);
        return;
      }
      const name = `webhooks-${slug}-${new Date().toISOString().slice(0, 19).replaceAll(':', '')}.${format}`;
      if (format === 'csv') download(name, csv(rows), 'text/csv;charset=utf-8');
      else download(name, json(rows), 'application/json');
      setTold(
        more
          ? `Exported the newest ${count(rows.length)} webhooks. Older ones match too; narrow the time range to export them.`
          : `Exported all ${plural(rows.length, 'matching webhook')}.`,
      );
    } catch (cause) {
      setTold(sentence(cause instanceof Error ? cause : new Error(String(cause))));
    }
  };

  return (
    <Stack gap="sm">
      <Text size="sm">
        Exports {filtered ? 'the webhooks that match the filters' : 'all webhooks'}, newest first, up to {count(MOST)}.
        The file has the list's columns, without bodies and headers.
      </Text>
      <SegmentedControl
        data={[
          { value: 'csv', label: 'CSV' },
          { value: 'json', label: 'JSON' },
        ]}
        value={format}
        onChange={setFormat}
        disabled={busy}
        aria-label="Format"
      />
      {busy && <Progress value={(got / MOST) * 100} animated aria-label="Export progress" />}
      <Text size="sm" aria-live="polite">
        {told ?? (busy ? `${plural(got, 'webhook')} so far` : '')}
      </Text>
      <Group justify="flex-end">
        <Button
          variant="default"
          onClick={() => {
            if (busy) stopped.current = true;
            else close();
          }}
        >
          {busy ? 'Stop export' : 'Close'}
        </Button>
        <Button data-autofocus loading={busy} onClick={() => void go()}>
          Export webhooks
        </Button>
      </Group>
    </Stack>
  );
}

/** Returns whether more match than fit in the file. */
async function gather(slug: string, filter: ServerFilter, rows: WebhookRow[], onPage: () => boolean): Promise<boolean> {
  let after: string | null = null;
  for (;;) {
    const answer: ResultOf<typeof WebhooksQuery> = await ask(WebhooksQuery, { slug, filter, first: PAGE, after });
    const page = answer.organization?.webhooks;
    if (!page) throw new Error('Organization not found.');
    rows.push(...page.nodes);
    after = page.searchedTo ?? (page.pageInfo.hasNextPage ? (page.pageInfo.endCursor ?? null) : null);
    if (rows.length >= MOST) {
      const more = after !== null || rows.length > MOST;
      rows.length = MOST;
      onPage();
      return more;
    }
    if (!onPage() || after === null) return false;
  }
}
