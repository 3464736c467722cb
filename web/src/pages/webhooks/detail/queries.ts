// The queries of the page of one webhook. Its body is requested when it is shown.
import { ask } from '../../../api/ask';
import { graphql, type ResultOf } from '../../../api/graphql';
import { fromBase64 } from '../../../ui/payload/bytes';
import { RowFields } from '../queries';

export const WebhookQuery = graphql(
  `
  query Webhook($slug: String!, $webhookId: UUID!) {
    organization(slug: $slug) {
      id
      webhook(webhookId: $webhookId) {
        ...WebhookRow
        bodySha256 contentType signatureReceived
        bodyRemoval { at kind reason }
        headers { name value }
        attempts { attemptNumber attemptedAt endedAt succeeded statusCode durationMs errorDetails responseExcerpt requestUrl requestHeaderNames }
        events { position sequence eventType payload actor userId client recordedAt }
        provider { id webhookUrl }
      }
    }
  }
`,
  [RowFields],
);

export type Webhook = NonNullable<NonNullable<ResultOf<typeof WebhookQuery>['organization']>['webhook']>;
export type Attempt = Webhook['attempts'][number];
export type LogEvent = Webhook['events'][number];

const TextQuery = graphql(`
  query WebhookText($slug: String!, $webhookId: UUID!) {
    organization(slug: $slug) { id webhook(webhookId: $webhookId) { id rawBody } }
  }
`);

const BytesQuery = graphql(`
  query WebhookBytes($slug: String!, $webhookId: UUID!) {
    organization(slug: $slug) { id webhook(webhookId: $webhookId) { id rawBodyBase64 } }
  }
`);

/** `gone`: it was too old, or erased. Its SHA-256 remains. */
export type Body =
  | { kind: 'text'; text: string }
  | { kind: 'bytes'; bytes: Uint8Array<ArrayBuffer> }
  | { kind: 'gone' };

export async function readBody(slug: string, webhookId: string): Promise<Body> {
  const text = (await ask(TextQuery, { slug, webhookId })).organization?.webhook?.rawBody;
  if (typeof text === 'string') return { kind: 'text', text };
  const base64 = (await ask(BytesQuery, { slug, webhookId })).organization?.webhook?.rawBodyBase64;
  return typeof base64 === 'string' ? { kind: 'bytes', bytes: fromBase64(base64) } : { kind: 'gone' };
}

export function bytesOf(body: Body): Uint8Array<ArrayBuffer> {
  if (body.kind === 'text') return new TextEncoder().encode(body.text);
  return body.kind === 'bytes' ? body.bytes : new Uint8Array();
}
