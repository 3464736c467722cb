// The reasons why a due attempt does not start.
import type { WebhookRow } from './queries';

type Wait = NonNullable<WebhookRow['waitsFor']>;

export const waits: Record<Wait, { word: string; means: string }> = {
  DESTINATION_REMOVED: { word: 'Destination removed', means: 'Add a destination to deliver this webhook' },
  ROUTE_REMOVED: { word: 'Route removed', means: 'Add the route again to deliver this webhook' },
  ROUTE_DISABLED: { word: 'Route disabled', means: 'Enable the route to deliver this webhook' },
  PROVIDER_DELETED: {
    word: 'Provider deleted',
    means: 'Connect the provider again, with a destination, to deliver this webhook',
  },
  PROVIDER_DISABLED: { word: 'Provider deactivated', means: 'Activate the provider to deliver this webhook' },
  ORGANIZATION_DISABLED: {
    word: 'Organization deactivated',
    means: 'Activate the organization to deliver this webhook',
  },
  SECRET_UNREADABLE: { word: 'Secret unreadable', means: 'Rotate the secrets to deliver this webhook' },
  CONCURRENCY: {
    word: 'Destination busy',
    means: 'The destination is at its limit of concurrent attempts. This webhook is sent as soon as one ends',
  },
  CIRCUIT_OPEN: {
    word: 'Destination not answering',
    means: 'The destination stopped answering. Single attempts test whether it answers again',
  },
};
