// Instructions for each service: where to enter the URL, where to find the secret, and how to send a webhook.
import { Anchor, Code, List } from '@mantine/core';
import type { ReactNode } from 'react';

import type { ProviderKind } from '../../ui/ProviderName';

type Words = {
  /** True if the service shows its secret only once it has the URL. */
  addressFirst: boolean;
  /** One line in the list of services. */
  about: string;
  /** How to find the secret. */
  secret: ReactNode;
  /** Steps at the service, in its own words. */
  address: readonly ReactNode[];
  /** How to send a first webhook. */
  first: ReactNode;
  docs: string;
};

const Menu = ({ of }: { of: string }) => <b>{of}</b>;

export const guides: Record<ProviderKind, Words> = {
  STRIPE: {
    addressFirst: true,
    about: 'Payments, invoices, subscriptions',
    secret: (
      <>
        Open the new destination in Workbench and choose <Menu of="Signing secret → Reveal" />. The secret begins with{' '}
        <Code>whsec_</Code>. Each destination has its own secret, and live mode and sandboxes have different ones.
      </>
    ),
    address: [
      <>
        In the Stripe Dashboard, open <Menu of="Workbench → Webhooks" /> (<Menu of="Developers → Webhooks" /> in the
        older Dashboard) and choose <Menu of="Add destination" />.
      </>,
      <>
        Choose events from <Menu of="Your account" />, select the ones you need, and continue.
      </>,
      <>
        For the destination type, choose <Menu of="Webhook endpoint" />. For <Menu of="Endpoint URL" />, enter the URL
        above.
      </>,
      <>
        Choose <Menu of="Create destination" />. The next page shows the signing secret, which you enter in the next
        step here.
      </>,
    ],
    first: (
      <>
        In Workbench, choose <Menu of="Send test events" /> on the destination, or run{' '}
        <Code>stripe trigger payment_intent.succeeded</Code>.
      </>
    ),
    docs: 'https://docs.stripe.com/webhooks',
  },
  GITHUB: {
    addressFirst: false,
    about: 'Pushes, pull requests, releases',
    secret:
      "Choose a secret here, then enter the same one at GitHub in the next step. Without a secret, GitHub doesn't sign its webhooks, and they are rejected.",
    address: [
      <>
        In the repository or organization, open <Menu of="Settings → Webhooks" /> and choose <Menu of="Add webhook" />.
      </>,
      <>
        For <Menu of="Payload URL" />, enter the URL above. For <Menu of="Content type" />, choose{' '}
        <Code>application/json</Code>.
      </>,
      <>
        For <Menu of="Secret" />, enter the secret from the previous step. Leave <Menu of="SSL verification" /> on.
      </>,
      <>
        Choose the events: just the push event, everything, or individual ones. Leave <Menu of="Active" /> on, and
        choose <Menu of="Add webhook" />.
      </>,
    ],
    first: (
      <>
        GitHub sends a <Code>ping</Code> as soon as you add the webhook. To resend it, use{' '}
        <Menu of="Recent Deliveries → … → Redeliver" />.
      </>
    ),
    docs: 'https://docs.github.com/en/webhooks/using-webhooks/creating-webhooks',
  },
  PAYPAL: {
    addressFirst: true,
    about: 'Payments, payouts, disputes',
    secret: (
      <>
        PayPal includes the <Menu of="Webhook ID" /> in what it signs. Copy it from your app's list of webhooks. Sandbox
        and live apps have different IDs.
      </>
    ),
    address: [
      <>
        In the PayPal Developer Dashboard, open <Menu of="Apps & Credentials" /> and choose <Menu of="Sandbox" /> or{' '}
        <Menu of="Live" />.
      </>,
      <>
        Open your app. Under <Menu of="Webhooks" />, choose <Menu of="Add Webhook" />.
      </>,
      <>
        For <Menu of="Webhook URL" />, enter the URL above. Select the event types you need, and choose{' '}
        <Menu of="Save" />.
      </>,
      <>
        The list now shows the <Menu of="Webhook ID" />, which you enter in the next step here.
      </>,
    ],
    first:
      "Make a payment in the sandbox. Events from the Webhooks Simulator fail verification, because they aren't signed for your webhook ID.",
    docs: 'https://developer.paypal.com/api/rest/webhooks/',
  },
  SHOPIFY: {
    addressFirst: true,
    about: 'Orders, products, customers',
    secret: (
      <>
        For webhooks created in the Shopify admin, find it below the list of webhooks: “Your webhooks will be signed
        with …”. For an app's webhooks, use the app's <Menu of="Client secret" />, under{' '}
        <Menu of="Settings → Credentials" /> in the Dev Dashboard.
      </>
    ),
    address: [
      <>
        In the Shopify admin, open <Menu of="Settings → Notifications → Webhooks" /> and choose{' '}
        <Menu of="Create webhook" />.
      </>,
      <>
        Choose the <Menu of="Event" />, the format <Menu of="JSON" />, and the latest stable API version.
      </>,
      <>
        For <Menu of="URL" />, enter the URL above, and save. Add one webhook per event.
      </>,
      <>
        For an app, subscribe in <Code>shopify.app.toml</Code> under <Code>[[webhooks.subscriptions]]</Code>, with the
        URL above as <Code>uri</Code>, and deploy.
      </>,
    ],
    first: (
      <>
        Choose <Menu of="Send test notification" /> next to the webhook in the Shopify admin, or run{' '}
        <Code>shopify app webhook trigger</Code>.
      </>
    ),
    docs: 'https://shopify.dev/docs/apps/build/webhooks',
  },
  STANDARD: {
    addressFirst: false,
    about: 'Any Standard Webhooks sender: Svix, Clerk, Resend, Supabase, or your own',
    secret: 'Copy the secret that the sender shows for its endpoint, or generate one here and give it to the sender.',
    address: [
      "In the sender's settings, add an endpoint with the URL above, and choose its events.",
      <>
        The sender and Hookledger need the same secret. Enter the secret from here at the sender, or rotate it here to
        the one that the sender shows.
      </>,
      <>
        If you write your own sender, send the headers <Code>webhook-id</Code>, <Code>webhook-timestamp</Code>, and{' '}
        <Code>webhook-signature</Code>. The libraries at standardwebhooks.com do this for you.
      </>,
    ],
    first: 'Ask the sender to send an example, or send one from your own code.',
    docs: 'https://www.standardwebhooks.com/',
  },
};

export function AddressGuide({ kind }: { kind: ProviderKind }) {
  const { address, docs } = guides[kind];
  return (
    <>
      <List type="ordered" size="sm" spacing="xs">
        {address.map((step, index) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: the steps of a service never change
          <List.Item key={index}>{step}</List.Item>
        ))}
      </List>
      <Anchor href={docs} target="_blank" rel="noreferrer" size="sm" underline="always">
        Read the service's documentation
      </Anchor>
    </>
  );
}
