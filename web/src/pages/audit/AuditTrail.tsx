// The audit trail: who did what, when and from where. Of an organization, or of all of them.
import { Anchor, SimpleGrid, Table, Text } from '@mantine/core';
import { IconChevronDown, IconChevronRight, IconHistory } from '@tabler/icons-react';
import { Fragment } from 'react';
import { Link } from 'wouter';

import { When } from '../../time';
import { Card } from '../../ui/Card';
import { Copy } from '../../ui/CopyText';
import { Empty } from '../../ui/Empty';
import { ListEnd } from '../../ui/ListEnd';
import type { List } from '../../ui/useList';
import { useRowKeys } from '../../ui/useRowKeys';
import { device } from '../account/device';
import classes from './AuditTrail.module.css';
import { actor, changesOf, type Entry, label, summary } from './entries';
import type { AuditFilter } from './useAuditFilter';

type Props = {
  list: List<Entry>;
  filter: AuditFilter;
  /** Shows the organization of each entry. */
  withOrganization?: boolean;
};

export function AuditTrail({ list, filter, withOrganization = false }: Props) {
  const { search, change, isFiltered } = filter;
  const rows = useRowKeys<HTMLTableSectionElement>('button[aria-expanded]');
  const columns = withOrganization ? 6 : 5;
  if (!list.isFirst && !list.error && list.rows.length === 0) {
    return (
      <Empty icon={IconHistory} title={isFiltered ? 'No entries match' : 'No entries yet'}>
        Every sign-in, change, retry, and export appears here, with who did it, when, and from where. Entries can't be
        changed or deleted.
      </Empty>
    );
  }
  return (
    <Card p={0}>
      <Table.ScrollContainer minWidth={860}>
        <Table highlightOnHover>
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Time</Table.Th>
              <Table.Th>User</Table.Th>
              {withOrganization && <Table.Th>Organization</Table.Th>}
              <Table.Th>Action</Table.Th>
              <Table.Th>Changes</Table.Th>
              <Table.Th>IP address</Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody ref={rows}>
            {list.rows.map((entry) => {
              const opened = search.open === entry.position;
              const toggle = () => change({ open: opened ? undefined : entry.position }, { replace: true });
              const Chevron = opened ? IconChevronDown : IconChevronRight;
              return (
                <Fragment key={entry.position}>
                  <Table.Tr
                    className={classes.row}
                    data-open={opened || undefined}
                    onClick={(event) =>
                      event.target instanceof Element && !event.target.closest('a, button') && toggle()
                    }
                  >
                    <Table.Td style={{ whiteSpace: 'nowrap' }}>
                      <When at={entry.at} />
                    </Table.Td>
                    <Table.Td className={`${classes.who} ${entry.user ? '' : 'quiet'}`} title={actor(entry)}>
                      <bdi>{actor(entry)}</bdi>
                    </Table.Td>
                    {withOrganization && (
                      <Table.Td>
                        {entry.organization ? (
                          <Anchor
                            component={Link}
                            href={`/admin/organizations/${entry.organization.slug}`}
                            size="sm"
                            className="foreign"
                          >
                            {entry.organization.name}
                          </Anchor>
                        ) : (
                          <span className="quiet">Platform</span>
                        )}
                      </Table.Td>
                    )}
                    <Table.Td style={{ whiteSpace: 'nowrap' }}>
                      <button type="button" className={classes.expand} aria-expanded={opened} onClick={toggle}>
                        <Chevron size={14} aria-hidden style={{ verticalAlign: 'middle', marginRight: 4 }} />
                        {summary(entry)}
                      </button>
                    </Table.Td>
                    <Table.Td className={classes.changes}>
                      <Text size="xs" className="quiet cut foreign" style={{ whiteSpace: 'nowrap' }}>
                        {changeSummary(entry)}
                      </Text>
                    </Table.Td>
                    <Table.Td className="mono foreign">{entry.client ?? '–'}</Table.Td>
                  </Table.Tr>
                  {opened && (
                    <Table.Tr className={classes.detail}>
                      <Table.Td colSpan={columns}>
                        <Detail entry={entry} filter={filter} />
                      </Table.Td>
                    </Table.Tr>
                  )}
                </Fragment>
              );
            })}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      <ListEnd of={list} />
    </Card>
  );
}

function changeSummary({ changes }: Entry): string {
  return changesOf(changes)
    .map(({ field, old, new: now }) =>
      old === undefined || old === now ? `${field}: ${now ?? '–'}` : `${field}: ${old} → ${now ?? '–'}`,
    )
    .join(' · ');
}

function Detail({ entry, filter: { change } }: { entry: Entry; filter: AuditFilter }) {
  const changes = changesOf(entry.changes);
  return (
    <SimpleGrid cols={{ base: 1, md: 2 }} spacing="lg" py="xs">
      <dl className={classes.facts}>
        <dt>Time</dt>
        <dd>
          <When at={entry.at} exact />
        </dd>
        <dt>User</dt>
        <dd className="foreign">
          {actor(entry)}
          {entry.userId && (
            <>
              {' · '}
              <Anchor
                component="button"
                size="sm"
                onClick={() => change({ user: entry.userId ?? undefined, open: undefined })}
              >
                View all their actions
              </Anchor>
            </>
          )}
        </dd>
        <dt>Client</dt>
        <dd className="foreign" title={entry.userAgent ?? undefined}>
          {entry.client ?? 'Unknown'}
          {entry.userAgent && `, ${device(entry.userAgent)}`}
        </dd>
        {entry.sessionId && (
          <>
            <dt>Session</dt>
            <dd className="mono">{entry.sessionId}</dd>
          </>
        )}
        <dt>Resource</dt>
        <dd>
          {label(entry.resourceType)} <span className="mono">{entry.resourceId}</span>{' '}
          <Copy value={entry.resourceId} label="Copy resource ID" />{' '}
          <Anchor component="button" size="sm" onClick={() => change({ resource: entry.resourceId, open: undefined })}>
            View history
          </Anchor>
        </dd>
        <dt>Log position</dt>
        <dd className="mono">{entry.position}</dd>
      </dl>
      {changes.length > 0 ? (
        <table className={classes.diff}>
          <thead>
            <tr>
              <th scope="col">Field</th>
              <th scope="col">Before</th>
              <th scope="col">After</th>
            </tr>
          </thead>
          <tbody>
            {changes.map(({ field, old, new: now }) => (
              <tr key={field}>
                <th scope="row">{field}</th>
                <td className={`foreign mono ${old === undefined || old === now ? 'quiet' : classes.old}`}>
                  {old ?? '–'}
                </td>
                <td className={`foreign mono ${old === now ? '' : classes.new}`}>{now ?? '–'}</td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : (
        <Text size="sm" className="quiet">
          No fields changed.
        </Text>
      )}
    </SimpleGrid>
  );
}
