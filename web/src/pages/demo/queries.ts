// The queries of the demo, which need no session.
import { graphql, type ResultOf } from '../../api/graphql';

export const DemoQuery = graphql(`
  query Demo {
    demo {
      providers { providerName webhookUrl canSign signatureHeader signedContent algorithm toleranceSeconds eventIdPlace }
    }
  }
`);

export const SamplesQuery = graphql(`
  query DemoSamples($providerName: ProviderName!) {
    demo { samples(providerName: $providerName) { name title eventType body } }
  }
`);

export const SendDemoWebhook = graphql(`
  mutation SendDemoWebhook($input: SendDemoWebhookInput!) {
    sendDemoWebhook(input: $input) {
      request { method url headers { name value } body }
      answer { status body }
      webhookId
      duplicate
      eventId
    }
  }
`);

export const DemoWebhookQuery = graphql(`
  query DemoWebhook($webhookId: UUID!) {
    demoWebhook(webhookId: $webhookId) {
      status
      signatureValid
      rejection
      errorMessage
      receivedAt
      processedAt
      bodySha256
      bodySize
      duplicateCount
      bodyDiffers
      events { position sequence eventType payload recordedAt offsetMs }
    }
  }
`);

export type DemoProvider = ResultOf<typeof DemoQuery>['demo']['providers'][number];
export type Sent = ResultOf<typeof SendDemoWebhook>['sendDemoWebhook'];
export type Seen = NonNullable<ResultOf<typeof DemoWebhookQuery>['demoWebhook']>;

/** The simulated problem. */
export type Fault = 'none' | 'broken' | 'stale' | 'again' | 'other-body';
