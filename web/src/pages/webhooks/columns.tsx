// The columns of the list.
import type { MouseEvent, ReactNode } from 'react';
import { Link } from 'wouter';

import { bytes, count, duration, plural } from '../../format';
import { Ago } from '../../time';
import { QuickCopy } from '../../ui/CopyText';
import { ProviderMark, providers } from '../../ui/ProviderName';
import { statusOf, webhookStatuses } from '../../ui/Status';
import type { Column } from '../../ui/VirtualTable';
import classes from './columns.module.css';
import type { WebhookRow } from './queries';
import { waits } from './waits';

/** `hrefOf` is the page of a webhook, for opening it in another tab. */
export function columnsFor(hrefOf: (row: WebhookRow) => string, choice?: Column<WebhookRow>): Column<WebhookRow>[] {
  return [
    ...(choice ? [choice] : []),
    { key: 'status', label: 'Status', width: '130px', render: (row) => <StatusCell row={row} /> },
    {
      key: 'type',
      label: 'Event type',
      width: 'minmax(180px, 1.4fr)',
      render: (row) => (
        <Link href={hrefOf(row)} className={classes.type} onClick={leaveToRow}>
          <EventType value={row.eventType} />
        </Link>
      ),
    },
    { key: 'provider', label: 'Provider', width: '120px', render: (row) => <ProviderCell row={row} /> },
    { key: 'id', label: 'ID', width: '150px', render: (row) => <IdCell row={row} /> },
    { key: 'received', label: 'Received', width: '100px', render: (row) => <Ago at={row.receivedAt} /> },
    { key: 'attempts', label: 'Attempts', width: '64px', right: true, render: (row) => attempts(row) },
    { key: 'latency', label: 'Latency', width: '80px', right: true, render: (row) => latency(row) },
    { key: 'flags', label: 'Notes', width: 'minmax(160px, 1fr)', render: (row) => <Notes row={row} /> },
  ];
}

/** A plain click on the link acts like a click on the row; with Ctrl or Cmd it opens another tab. */
function leaveToRow(event: MouseEvent): void {
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const row = event.currentTarget.closest<HTMLElement>('[role="row"]');
  row?.click();
}

export function StatusCell({ row }: { row: WebhookRow }) {
  const { word, icon: StatusIcon, color, means } = webhookStatuses[statusOf(row)];
  return (
    <span
      className={classes.status}
      style={{ color }}
      title={row.errorMessage ? `${means}: ${row.errorMessage}` : means}
    >
      <StatusIcon size={16} aria-hidden />
      {word}
    </span>
  );
}

export function EventType({ value }: { value: string | null | undefined }) {
  return value ? (
    <bdi className={classes.foreign}>{value.slice(0, 200)}</bdi>
  ) : (
    <span className="quiet">No event type</span>
  );
}

function ProviderCell({ row }: { row: WebhookRow }) {
  const { word } = providers[row.provider.providerName];
  return (
    <span className={classes.status} title={word}>
      <ProviderMark kind={row.provider.providerName} size={16} />
      <span className="cut">{word}</span>
    </span>
  );
}

function IdCell({ row }: { row: WebhookRow }) {
  return (
    <span className={classes.id}>
      <span className="mono" title={row.webhookId}>
        {row.webhookId.slice(0, 8)}…
      </span>
      <QuickCopy value={row.webhookId} label="Copy ID" />
    </span>
  );
}

/** The number of attempts, as far as the row has them. Retries by a person are only in the detail. */
export function attempts(row: WebhookRow): string {
  if (row.rejection) return '–';
  return String(row.status === 'PENDING' && row.retryCount === 0 ? 0 : row.retryCount + 1);
}

/** The time from receipt to success. */
export function latency(row: WebhookRow): string {
  return row.processedAt ? duration(Date.parse(row.processedAt) - Date.parse(row.receivedAt)) : '–';
}

type Note = { key: string; word: string; means: string; color: string };

export function notesOf(row: WebhookRow): Note[] {
  const notes: Note[] = [];
  const add = (key: string, word: string, means: string, color: string) => notes.push({ key, word, means, color });
  if (row.isTest) add('test', 'Test', 'A test webhook sent from Hookledger', 'var(--quiet)');
  if (row.bodyDiffers) add('body', 'Body differs', 'A duplicate of this event has a different body', 'var(--failed)');
  if (row.suspectedReplay)
    add(
      'replay',
      'Suspected replay',
      "The same body was received before with a different ID, and the sender doesn't sign the ID",
      'var(--pending)',
    );
  if (row.rejection === 'transmission_replayed')
    add('transmission', 'Replayed', 'A transmission ID was reused with a different body', 'var(--failed)');
  if (row.duplicateCount > 0)
    add(
      'duplicates',
      plural(row.duplicateCount, 'duplicate'),
      `Received ${count(row.duplicateCount + 1)} times; processed once`,
      'var(--quiet)',
    );
  return notes;
}

function Notes({ row }: { row: WebhookRow }) {
  const status = statusOf(row);
  return (
    <span className={classes.notes}>
      {notesOf(row).map(({ key, word, means, color }) => (
        <span key={key} className={classes.note} style={{ color }} title={means}>
          {word}
        </span>
      ))}
      {row.waitsFor ? (
        <span className="quiet" title={waits[row.waitsFor].means}>
          {waits[row.waitsFor].word}
        </span>
      ) : status === 'failed' && row.nextRetryAt ? (
        <span className="quiet">
          Next retry <Ago at={row.nextRetryAt} />
        </span>
      ) : (
        row.errorMessage && (
          <bdi className={classes.error} title={row.errorMessage.slice(0, 500)}>
            {row.errorMessage.slice(0, 200)}
          </bdi>
        )
      )}
    </span>
  );
}

/** A row on a narrow screen. */
export function WebhookCard({ row, href, choice }: { row: WebhookRow; href: string; choice?: ReactNode }) {
  return (
    <div className={classes.card}>
      <div className={classes.line}>
        <span className={classes.line}>
          {choice}
          <StatusCell row={row} />
        </span>
        <span className="quiet">
          <Ago at={row.receivedAt} />
        </span>
      </div>
      <Link href={href} className={classes.type} onClick={leaveToRow}>
        <EventType value={row.eventType} />
      </Link>
      <div className={classes.line}>
        <ProviderCell row={row} />
        <span className="quiet cut">
          {bytes(row.bodySize)}
          {notesOf(row).map(({ word }) => ` · ${word}`)}
        </span>
      </div>
    </div>
  );
}
