// The log's events of a webhook and its deliveries, in words.
import { duration, plural } from '../../../format';
import type { LogEvent } from './queries';
import { rejectionWord } from './rejections';

/** A field of an event's payload, as text. */
export function field(payload: unknown, name: string): string | undefined {
  if (typeof payload !== 'object' || payload === null) return undefined;
  const value: unknown = Reflect.get(payload, name);
  if (typeof value === 'string') return value;
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : undefined;
}

/** How many routes a webhook matched. */
function matched(payload: unknown): number {
  if (typeof payload !== 'object' || payload === null) return 0;
  const routes: unknown = Reflect.get(payload, 'matched');
  return Array.isArray(routes) ? routes.length : 0;
}

export type Told = { title: string; detail?: string; tone: 'good' | 'bad' | 'plain' };

/** `when` writes a time. */
export function toldEvent(
  { eventType, payload }: Pick<LogEvent, 'eventType' | 'payload'>,
  when: (at: string) => string,
): Told {
  const of = (name: string) => field(payload, name);
  const attempt = of('attempt');
  const took = of('durationMs');
  const after = took && duration(Number(took));
  switch (eventType) {
    case 'webhook.received':
      return { title: 'Received', detail: of('providerEventId') && `Event ${of('providerEventId')}`, tone: 'plain' };
    case 'webhook.received_unverified':
      return { title: 'Received; verification pending', tone: 'plain' };
    case 'webhook.signature_verified':
      return {
        title: 'Signature verified',
        detail: `${of('scheme') ?? ''}, secret version ${of('secretVersion') ?? '?'}`,
        tone: 'good',
      };
    case 'webhook.verification_failed':
      return { title: 'Verification failed', detail: of('detail'), tone: 'bad' };
    case 'webhook.merged':
      return { title: 'Matched an existing webhook', detail: of('into'), tone: 'plain' };
    case 'webhook.rejected':
      return {
        title: `Rejected: ${rejectionWord(of('reason') ?? 'no reason recorded')}`,
        detail: of('detail'),
        tone: 'bad',
      };
    case 'webhook.duplicate_received':
      return {
        title: of('bodyDiffers') === 'true' ? 'Duplicate with a different body' : 'Duplicate',
        tone: of('bodyDiffers') === 'true' ? 'bad' : 'plain',
      };
    case 'webhook.duplicates_counted': {
      const differing = Number(of('differing') ?? 0);
      return {
        title: `${plural(Number(of('count') ?? 0), 'more duplicate')}`,
        detail: differing > 0 ? `${differing} with a different body` : undefined,
        tone: differing > 0 ? 'bad' : 'plain',
      };
    }
    case 'webhook.routed': {
      const routes = matched(payload);
      return routes === 0
        ? { title: 'Stored', detail: 'No route took it, so nothing was sent', tone: 'good' }
        : { title: `Routed to ${plural(routes, 'destination')}`, tone: 'plain' };
    }
    case 'delivery.attempt_started':
      return { title: `Attempt ${attempt} started`, tone: 'plain' };
    case 'delivery.attempt_succeeded':
      return {
        title: `Attempt ${attempt} succeeded`,
        detail: [of('statusCode') && `Returned ${of('statusCode')}`, after].filter(Boolean).join(' · '),
        tone: 'good',
      };
    case 'delivery.attempt_failed':
      return {
        title: `Attempt ${attempt} failed`,
        detail: [of('error'), after].filter(Boolean).join(' · '),
        tone: 'bad',
      };
    case 'delivery.attempt_abandoned':
      return { title: `Attempt ${attempt} failed: worker lost`, tone: 'bad' };
    case 'delivery.retry_scheduled':
      return {
        title: `Retry scheduled (attempt ${attempt})`,
        detail: of('retryAt') && `For ${when(of('retryAt') ?? '')}`,
        tone: 'plain',
      };
    case 'delivery.dead_lettered':
      return {
        title: `Dead letter after ${plural(Number(of('attempts') ?? 0), 'attempt')}`,
        detail: 'Needs attention',
        tone: 'bad',
      };
    case 'delivery.retry_requested':
      return { title: `Retry requested (attempt ${attempt})`, detail: of('reason'), tone: 'plain' };
    case 'delivery.cancelled':
      return { title: 'Delivery cancelled', detail: of('reason'), tone: 'plain' };
    default:
      return { title: eventType, tone: 'plain' };
  }
}

/** The time since the first: `+12 ms`. */
export function offset(from: string, to: string): string {
  const between = Date.parse(to) - Date.parse(from);
  return between <= 0 ? '+0 ms' : `+${duration(between)}`;
}
