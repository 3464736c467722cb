// The queries of the tester.
import { graphql, type ResultOf, type VariablesOf } from '../../api/graphql';

export const TesterQuery = graphql(`
  query Tester($slug: String!) {
    organization(slug: $slug) {
      id
      providers { id providerName isActive deletedAt }
    }
  }
`);

export const SamplesQuery = graphql(`
  query Samples($provider: ProviderName!) {
    sampleWebhooks(providerName: $provider) { name title eventType body headers { name value } }
  }
`);

export type Sample = ResultOf<typeof SamplesQuery>['sampleWebhooks'][number];

export const Send = graphql(`
  mutation SendTestWebhook($input: SendTestWebhookInput!) {
    sendTestWebhook(input: $input) {
      duplicate
      request { method url headers { name value } body }
      answer { status body retryAfter }
      webhook { id webhookId status deadLetteredAt rejection eventType errorMessage }
    }
  }
`);

export type Sent = ResultOf<typeof Send>['sendTestWebhook'];
export type Fault = NonNullable<VariablesOf<typeof Send>['input']['fault']>;
