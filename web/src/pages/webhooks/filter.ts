// The filter: read from the address, sent to the server, and applied to changed rows.
import type { VariablesOf } from '../../api/graphql';
import { type ProviderKind, providerKinds, providers as services } from '../../ui/ProviderName';
import { allStatuses, statusOf, type WebhookStatus } from '../../ui/Status';
import { listOf, type Search } from '../../url';
import type { WebhookRow, WebhooksQuery } from './queries';

export type ServerFilter = NonNullable<VariablesOf<typeof WebhooksQuery>['filter']>;

/** The parameters of the address that filter; pages that link here use them too (`webhooksHref`). */
export type FilterParameters = {
  /** Text or an id. */
  q?: string;
  /** Statuses, separated by commas; `failed`, `dead` and `rejected` only alone. */
  status?: string;
  /** `stripe`, `github`…, or the id of a provider. */
  provider?: string;
  type?: string;
  signature?: 'valid' | 'invalid';
  flag?: 'any' | 'body' | 'replay';
  /** The exact text of the last error. */
  error?: string;
  /** `15m`, `1h`, `24h`, `7d`, `30d`: the time up to now, instead of `from` and `to`. */
  since?: string;
  from?: string;
  to?: string;
};

export const filterNames = [
  'q',
  'status',
  'provider',
  'type',
  'signature',
  'flag',
  'error',
  'since',
  'from',
  'to',
] as const;

export const spans: Record<string, { word: string; milliseconds: number }> = {
  '15m': { word: 'Last 15 minutes', milliseconds: 15 * 60_000 },
  '1h': { word: 'Last hour', milliseconds: 3_600_000 },
  '24h': { word: 'Last 24 hours', milliseconds: 86_400_000 },
  '7d': { word: 'Last 7 days', milliseconds: 7 * 86_400_000 },
  '30d': { word: 'Last 30 days', milliseconds: 30 * 86_400_000 },
};

/** The address of the list with a filter. */
export function webhooksHref(base: string, filter: FilterParameters): string {
  const parameters = new URLSearchParams(Object.entries(filter).filter(([, value]) => value) as [string, string][]);
  return parameters.size ? `${base}/webhooks?${parameters.toString()}` : `${base}/webhooks`;
}

export type Filter = {
  text: string;
  /** Empty for all. */
  statuses: WebhookStatus[];
  providerId: string | undefined;
  /** The provider in the address does not exist. */
  unknownProvider: boolean;
  type: string;
  signature: 'valid' | 'invalid' | undefined;
  flag: 'any' | 'body' | 'replay' | undefined;
  error: string;
  from: number | undefined;
  to: number | undefined;
};

/** These are more specific than a status in the API, so each can only be selected alone. */
const alone: readonly WebhookStatus[] = ['failed', 'dead', 'rejected'];

/** The statuses after one was switched on or off. */
export function toggled(before: readonly WebhookStatus[], which: WebhookStatus): WebhookStatus[] {
  if (before.includes(which)) return before.filter((each) => each !== which);
  if (alone.includes(which)) return [which];
  return [...before.filter((each) => !alone.includes(each)), which];
}

export type KnownProvider = { id: string; providerName: ProviderKind; deletedAt?: string | null };

/** Reads the address, and ignores invalid parameters. */
export function filterOf(search: Search, providers: readonly KnownProvider[], now: number): Filter {
  const named = listOf(search.status).filter((word): word is WebhookStatus =>
    (allStatuses as readonly string[]).includes(word),
  );
  const single = named.find((each) => alone.includes(each));
  const provider = providerOf(search.provider, providers);
  const span = search.since ? spans[search.since] : undefined;
  return {
    text: search.q?.trim() ?? '',
    statuses: single ? [single] : named,
    providerId: provider?.id,
    unknownProvider: Boolean(search.provider) && !provider,
    type: search.type ?? '',
    signature: search.signature === 'valid' || search.signature === 'invalid' ? search.signature : undefined,
    flag: search.flag === 'any' || search.flag === 'body' || search.flag === 'replay' ? search.flag : undefined,
    error: search.error ?? '',
    from: span ? now - span.milliseconds : time(search.from),
    to: span ? undefined : time(search.to),
  };
}

export function providerOf(word: string | undefined, providers: readonly KnownProvider[]): KnownProvider | undefined {
  if (!word) return undefined;
  const kind = providerKinds.find((each) => services[each].slug === word);
  const fitting = providers.filter((each) => each.id === word || each.providerName === kind);
  return fitting.find((each) => !each.deletedAt) ?? fitting[0];
}

function time(text: string | undefined): number | undefined {
  const at = text ? Date.parse(text) : Number.NaN;
  return Number.isNaN(at) ? undefined : at;
}

export function isFiltered(filter: Filter): boolean {
  return filter.unknownProvider || Object.keys(serverFilter(filter)).length > 0;
}

/** The filter for the server. */
export function serverFilter(filter: Filter): ServerFilter {
  const asked: ServerFilter = {};
  const [first] = filter.statuses;
  if (filter.text) asked.text = filter.text;
  if (first === 'dead') asked.deadLettered = true;
  else if (first === 'failed') Object.assign(asked, { status: ['FAILED'], deadLettered: false, signatureValid: true });
  else if (first === 'rejected') Object.assign(asked, { status: ['FAILED'], signatureValid: false });
  else if (first)
    asked.status = filter.statuses.map((each) => each.toUpperCase() as 'PENDING' | 'PROCESSING' | 'SUCCESS');
  if (filter.providerId) asked.providerId = filter.providerId;
  if (filter.type) asked.eventType = filter.type;
  if (filter.signature) asked.signatureValid = filter.signature === 'valid';
  if (filter.flag === 'any') asked.flagged = true;
  if (filter.flag === 'body') asked.bodyDiffers = true;
  if (filter.flag === 'replay') asked.suspectedReplay = true;
  if (filter.error) asked.errorMessage = filter.error;
  if (filter.from !== undefined) asked.receivedFrom = new Date(filter.from).toISOString();
  if (filter.to !== undefined) asked.receivedTo = new Date(filter.to).toISOString();
  return asked;
}

/**
 * The filter of the subscription: only fields that never change for a webhook, so that the list also learns of rows
 * whose new status no longer matches. `matches` decides about new rows.
 */
export function followed(filter: Filter): ServerFilter {
  const { providerId, eventType, receivedTo } = serverFilter(filter);
  return { providerId, eventType, receivedTo };
}

/** True if a row matches the filter. A text filter cannot be judged by the row. */
export function matches(filter: Filter, row: WebhookRow): boolean {
  const at = Date.parse(row.receivedAt);
  return (
    (filter.statuses.length === 0 || filter.statuses.includes(statusOf(row))) &&
    (!filter.providerId || row.provider.id === filter.providerId) &&
    (!filter.type || row.eventType === filter.type) &&
    (!filter.signature || row.signatureValid === (filter.signature === 'valid')) &&
    (filter.flag !== 'any' || row.flagged) &&
    (filter.flag !== 'body' || row.bodyDiffers) &&
    (filter.flag !== 'replay' || row.suspectedReplay) &&
    (!filter.error || row.errorMessage === filter.error) &&
    (filter.from === undefined || at >= filter.from) &&
    (filter.to === undefined || at < filter.to)
  );
}
