// The queries of the list.
import { graphql, type ResultOf } from '../../api/graphql';

/** The fields of a row. No body and no attempts: a page of rows is one read of one table. */
export const RowFields = graphql(`
  fragment WebhookRow on Webhook @_unmask {
    id webhookId status deadLetteredAt rejection eventType providerEventId
    provider { id providerName }
    receivedAt processedAt updatedAt nextRetryAt retryCount errorMessage waitsFor bodySize
    signatureValid flagged bodyDiffers suspectedReplay isTest duplicateCount
  }
`);

export const WebhooksQuery = graphql(
  `
  query Webhooks($slug: String!, $filter: WebhookFilter, $first: Int!, $after: String) {
    organization(slug: $slug) {
      id
      webhooks(filter: $filter, first: $first, after: $after) {
        nodes { ...WebhookRow }
        pageInfo { hasNextPage endCursor }
        searchedTo
      }
    }
  }
`,
  [RowFields],
);

export const WebhookChangedSubscription = graphql(
  `
  subscription WebhookChanged($organizationId: ID!, $filter: WebhookFilter) {
    webhookChanged(organizationId: $organizationId, filter: $filter) {
      kind
      webhook { ...WebhookRow }
    }
  }
`,
  [RowFields],
);

/** The providers to filter by, and whether there are any webhooks. */
export const SurroundingsQuery = graphql(`
  query WebhookSurroundings($slug: String!) {
    organization(slug: $slug) {
      id webhookCount
      providers { id providerName isActive deletedAt webhookUrl }
    }
  }
`);

export const RetryableQuery = graphql(`
  query Retryable($slug: String!, $filter: WebhookFilter) {
    organization(slug: $slug) { id retryableCount(filter: $filter) }
  }
`);

export const RetryMatchingMutation = graphql(`
  mutation RetryMatching($input: RetryWebhooksInput!) {
    retryWebhooks(input: $input) { retriedCount skippedCount }
  }
`);

export const RetryMutation = graphql(
  `
  mutation Retry($input: RetryWebhookInput!) {
    retryWebhook(input: $input) { webhook { ...WebhookRow } }
  }
`,
  [RowFields],
);

export type WebhookRow = ResultOf<typeof RowFields>;
export type Surroundings = NonNullable<ResultOf<typeof SurroundingsQuery>['organization']>;
