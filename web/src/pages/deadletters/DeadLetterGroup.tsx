import { Anchor, Button, Collapse, Group, Text } from '@mantine/core';
import { IconChevronDown, IconChevronRight } from '@tabler/icons-react';
import { useId } from 'react';
import { Link } from 'wouter';

import { count, plural } from '../../format';
import { useOrganization } from '../../session/viewer';
import { Ago } from '../../time';
import { Card } from '../../ui/Card';
import { ProviderMark, providers } from '../../ui/ProviderName';
import { beginning, visible } from '../../ui/payload/visible';
import { listOf, useSearch } from '../../url';
import { webhooksHref } from '../webhooks/filter';
import type { RetryTarget } from '../webhooks/RetryDialog';
import classes from './deadletters.module.css';
import type { Group as DeadGroup } from './groups';

/** Rows that an open group shows. */
const SHOWN = 50;

export function DeadLetterGroup({ group, retry }: { group: DeadGroup; retry: (target: RetryTarget) => void }) {
  const { base } = useOrganization();
  const [search, setSearch] = useSearch();
  const id = useId();
  const name = shortName(group.key);
  const open = listOf(search.open);
  const isOpen = open.includes(name);
  const toggle = () =>
    setSearch({ open: (isOpen ? open.filter((each) => each !== name) : [...open, name]).join(',') }, { replace: true });
  const { word, slug } = providers[group.provider.providerName];
  // One by one if all are loaded, so that each shows its result. Otherwise by a filter.
  const all = (): RetryTarget =>
    group.rows.length >= group.count || group.error === null
      ? { rows: group.rows }
      : {
          filter: { deadLettered: true, providerId: group.provider.id, errorMessage: group.error },
          what: `from ${word} with this error`,
        };
  return (
    <Card p={0}>
      <div className={classes.group}>
        <button type="button" className={classes.fold} aria-expanded={isOpen} aria-controls={id} onClick={toggle}>
          {isOpen ? <IconChevronDown size={16} aria-hidden /> : <IconChevronRight size={16} aria-hidden />}
          <span className={classes.what}>
            <bdi className={classes.error}>{visible(beginning(group.error ?? 'No error recorded', 300))}</bdi>
            <span className={classes.where}>
              <ProviderMark kind={group.provider.providerName} size={14} /> {word}
              <span>
                · oldest <Ago at={group.oldest} />
              </span>
              <span>
                · newest <Ago at={group.newest} />
              </span>
            </span>
          </span>
        </button>
        <Group gap="sm" wrap="nowrap">
          <Text span fw={600} className={classes.count} aria-label={plural(group.count, 'dead letter')}>
            {count(group.count)}
          </Text>
          <Button size="xs" variant="default" onClick={() => retry(all())}>
            Retry {plural(group.count, 'webhook')}…
          </Button>
        </Group>
      </div>
      <Collapse expanded={isOpen} id={id}>
        {isOpen && (
          <ul className={classes.rows}>
            {group.rows.slice(0, SHOWN).map((row) => (
              <li key={row.webhookId} className={classes.row}>
                <Anchor
                  component={Link}
                  href={`${base}/webhooks/${row.webhookId}`}
                  size="sm"
                  className="cut"
                  c="inherit"
                >
                  <bdi>{visible(beginning(row.eventType ?? 'No event type', 120))}</bdi>
                </Anchor>
                <span className="mono quiet cut">{row.webhookId.slice(0, 8)}…</span>
                <Text span size="sm" className="quiet">
                  <Ago at={row.receivedAt} />
                </Text>
                <Button
                  size="compact-xs"
                  variant="subtle"
                  aria-label={`Retry webhook ${row.webhookId}`}
                  onClick={() => retry({ rows: [row] })}
                >
                  Retry…
                </Button>
              </li>
            ))}
            <li className={classes.all}>
              <Anchor
                component={Link}
                href={webhooksHref(base, { status: 'dead', provider: slug, error: group.error ?? undefined })}
                size="xs"
              >
                {group.count > SHOWN
                  ? `Showing ${SHOWN}. View all ${count(group.count)} in the webhook list`
                  : 'View in the webhook list'}
              </Anchor>
            </li>
          </ul>
        )}
      </Collapse>
    </Card>
  );
}

/** Identifies a group in the address, whatever its error contains. */
function shortName(key: string): string {
  let hash = 0;
  for (let index = 0; index < key.length; index++) hash = (Math.imul(hash, 31) + key.charCodeAt(index)) | 0;
  return (hash >>> 0).toString(36);
}
