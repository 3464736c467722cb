// Rows as files. Text from strangers must not become a formula in a spreadsheet.
import { statusOf } from '../../ui/Status';
import type { WebhookRow } from './queries';

export const fields = [
  'webhook_id',
  'provider',
  'provider_event_id',
  'event_type',
  'status',
  'rejection',
  'signature_valid',
  'received_at',
  'processed_at',
  'next_retry_at',
  'dead_lettered_at',
  'retry_count',
  'duplicate_count',
  'body_differs',
  'suspected_replay',
  'body_size',
  'error_message',
] as const;

export function record(row: WebhookRow): Record<(typeof fields)[number], string | number | boolean | null> {
  return {
    webhook_id: row.webhookId,
    provider: row.provider.providerName.toLowerCase(),
    provider_event_id: row.providerEventId,
    event_type: row.eventType,
    status: statusOf(row),
    rejection: row.rejection,
    signature_valid: row.signatureValid,
    received_at: row.receivedAt,
    processed_at: row.processedAt,
    next_retry_at: row.nextRetryAt,
    dead_lettered_at: row.deadLetteredAt,
    retry_count: row.retryCount,
    duplicate_count: row.duplicateCount,
    body_differs: row.bodyDiffers,
    suspected_replay: row.suspectedReplay,
    body_size: row.bodySize,
    error_message: row.errorMessage,
  };
}

/** Every cell is quoted; one that a spreadsheet would calculate begins with an apostrophe. */
export function cell(value: string | number | boolean | null | undefined): string {
  const text = value === null || value === undefined ? '' : String(value);
  const harmless = /^[\s\p{C}]*[=+\-@|%＝＋－＠]/u.test(text) || /^[\t\r\n]/.test(text) ? `'${text}` : text;
  return `"${harmless.replaceAll('"', '""')}"`;
}

export function csv(rows: readonly WebhookRow[]): string {
  const lines = rows.map((row) => Object.values(record(row)).map(cell).join(','));
  // RFC 4180 ends lines so; the mark at the beginning tells spreadsheets that it is UTF-8.
  return `\uFEFF${[fields.join(','), ...lines].join('\r\n')}\r\n`;
}

export function json(rows: readonly WebhookRow[]): string {
  return `[\n${rows.map((row) => JSON.stringify(record(row))).join(',\n')}\n]\n`;
}
