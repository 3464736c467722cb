// The queries of the provider pages.
import { graphql, type ResultOf } from '../../api/graphql';

export const ProviderFragment = graphql(`
  fragment ProviderFields on WebhookProvider @_unmask {
    id providerName isActive createdAt deletedAt webhookUrl
    secrets { version label setAt expiresAt lastUsedAt safeToRetire }
    destination {
      url timeoutSeconds concurrency headerNames originalSignature setAt waiting circuit
      circuits { node state failures openedAt probeAt changedAt }
      secrets { version setAt expiresAt }
    }
  }
`);

export type Provider = ResultOf<typeof ProviderFragment>;
export type Destination = NonNullable<Provider['destination']>;
export type Secret = Provider['secrets'][number];

export const ProvidersQuery = graphql(
  `
    query Providers($slug: String!) {
      organization(slug: $slug) {
        id
        providers { ...ProviderFields }
      }
    }
  `,
  [ProviderFragment],
);

// Each answer has the organization, so that cached lists without the provider are read again.
export const Connect = graphql(
  `
    mutation ConnectProvider($input: ConnectProviderInput!) {
      connectProvider(input: $input) { provider { ...ProviderFields organization { id } } }
    }
  `,
  [ProviderFragment],
);

export const SetDestination = graphql(
  `
    mutation SetProviderDestination($input: SetProviderDestinationInput!) {
      setProviderDestination(input: $input) { signingSecret provider { ...ProviderFields organization { id } } }
    }
  `,
  [ProviderFragment],
);

export const RotateSecret = graphql(
  `
    mutation RotateProviderSecret($input: RotateProviderSecretInput!) {
      rotateProviderSecret(input: $input) { provider { ...ProviderFields organization { id } } }
    }
  `,
  [ProviderFragment],
);

export const AddSecret = graphql(
  `
    mutation AddProviderSecret($input: AddProviderSecretInput!) {
      addProviderSecret(input: $input) { provider { ...ProviderFields organization { id } } }
    }
  `,
  [ProviderFragment],
);

export const LabelSecret = graphql(
  `
    mutation LabelProviderSecret($input: LabelProviderSecretInput!) {
      labelProviderSecret(input: $input) { provider { ...ProviderFields organization { id } } }
    }
  `,
  [ProviderFragment],
);

export const RevokeSecret = graphql(
  `
    mutation RevokeProviderSecret($input: RevokeProviderSecretInput!) {
      revokeProviderSecret(input: $input) { provider { ...ProviderFields organization { id } } }
    }
  `,
  [ProviderFragment],
);

export const CheckSecret = graphql(`
  mutation CheckProviderSecret($input: CheckProviderSecretInput!) {
    checkProviderSecret(input: $input) { refused doubtful isSimulator }
  }
`);

export const RotateSigningSecret = graphql(
  `
    mutation RotateDestinationSecret($input: RotateDestinationSecretInput!) {
      rotateDestinationSecret(input: $input) { signingSecret provider { ...ProviderFields organization { id } } }
    }
  `,
  [ProviderFragment],
);

export const SetActive = graphql(
  `
    mutation SetProviderActive($input: SetActiveInput!) {
      setProviderActive(input: $input) { provider { ...ProviderFields organization { id } } }
    }
  `,
  [ProviderFragment],
);

export const Delete = graphql(
  `
    mutation DeleteProvider($input: DeleteProviderInput!) {
      deleteProvider(input: $input) { provider { ...ProviderFields organization { id } } }
    }
  `,
  [ProviderFragment],
);

export const RowFragment = graphql(`
  fragment ProviderWebhook on Webhook @_unmask {
    id webhookId status deadLetteredAt rejection eventType receivedAt updatedAt signatureValid errorMessage
  }
`);

export type Row = ResultOf<typeof RowFragment>;

export const RecentQuery = graphql(
  `
    query RecentOfProvider($slug: String!, $provider: ID!, $first: Int!) {
      organization(slug: $slug) {
        id
        webhooks(first: $first, filter: { providerId: $provider }) { nodes { ...ProviderWebhook } }
      }
    }
  `,
  [RowFragment],
);

export const ChangedSubscription = graphql(
  `
    subscription ProviderWebhookChanged($organizationId: ID!, $provider: ID!) {
      webhookChanged(organizationId: $organizationId, filter: { providerId: $provider }) {
        kind
        webhook { ...ProviderWebhook }
      }
    }
  `,
  [RowFragment],
);

export const SendTest = graphql(
  `
    mutation SendTestOfProvider($input: SendTestWebhookInput!) {
      sendTestWebhook(input: $input) { duplicate webhook { ...ProviderWebhook } }
    }
  `,
  [RowFragment],
);
