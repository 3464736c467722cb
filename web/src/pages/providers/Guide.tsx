// Each service's own way to its webhooks: where to enter the address, where the secret is, and how to have it send one.
import { Anchor, Code, List } from '@mantine/core';
import type { ReactNode } from 'react';

import type { ProviderKind } from '../../ui/ProviderName';

type Words = {
  /** Where the address has to be entered before the service tells its secret. */
  addressFirst: boolean;
  /** One line on the choice of services. */
  about: string;
  /** How to get the secret. */
  secret: ReactNode;
  /** Steps at the service, in its own words. */
  address: readonly ReactNode[];
  /** How to have the service send a first webhook. */
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
        Open the new destination in Workbench and choose <Menu of="Signing secret → Reveal" />: it begins with{' '}
        <Code>whsec_</Code>. Every destination has its own, and live mode has another one than a sandbox.
      </>
    ),
    address: [
      <>
        In the Stripe Dashboard, open <Menu of="Workbench → Webhooks" /> (<Menu of="Developers → Webhooks" /> in the
        older one) and choose <Menu of="Add destination" />.
      </>,
      <>
        Events from <Menu of="Your account" />; select the events that you need, and continue.
      </>,
      <>
        Destination type <Menu of="Webhook endpoint" />, and as <Menu of="Endpoint URL" /> the address above.
      </>,
      <>
        <Menu of="Create destination" />. The page that follows has the signing secret, which comes next here.
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
      'You choose the secret here and enter the same one at GitHub, next. Without a secret GitHub does not sign, and everything is refused.',
    address: [
      <>
        In the repository or organization, open <Menu of="Settings → Webhooks" /> and choose <Menu of="Add webhook" />.
      </>,
      <>
        <Menu of="Payload URL" />: the address above. <Menu of="Content type" />: <Code>application/json</Code>.
      </>,
      <>
        <Menu of="Secret" />: the one that you connected with. Leave <Menu of="SSL verification" /> on.
      </>,
      <>
        Choose the events: just the push event, everything, or those that you select. Leave <Menu of="Active" /> on, and{' '}
        <Menu of="Add webhook" />.
      </>,
    ],
    first: (
      <>
        GitHub sends a <Code>ping</Code> as soon as the webhook is added. To have it again:{' '}
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
        PayPal signs with a certificate, over the <Menu of="Webhook ID" /> among other things: copy it from your app's
        list of webhooks. Sandbox and live apps have different ones.
      </>
    ),
    address: [
      <>
        In the PayPal Developer Dashboard, open <Menu of="Apps & Credentials" /> and choose <Menu of="Sandbox" /> or{' '}
        <Menu of="Live" />.
      </>,
      <>
        Open your app, and under <Menu of="Webhooks" /> choose <Menu of="Add Webhook" />.
      </>,
      <>
        <Menu of="Webhook URL" />: the address above. Select the event types that you need, and <Menu of="Save" />.
      </>,
      <>
        The list now shows the <Menu of="Webhook ID" />, which comes next here.
      </>,
    ],
    first:
      'Make a payment in the sandbox. Events of the Webhooks Simulator do not verify: they are signed for no webhook ID of yours.',
    docs: 'https://developer.paypal.com/api/rest/webhooks/',
  },
  SHOPIFY: {
    addressFirst: true,
    about: 'Orders, products, customers',
    secret: (
      <>
        For webhooks of the shop's admin, it stands below their list: “Your webhooks will be signed with …”. For
        webhooks of an app, it is the app's <Menu of="Client secret" />, under <Menu of="Settings → Credentials" /> in
        the Dev Dashboard.
      </>
    ),
    address: [
      <>
        In the shop's admin, open <Menu of="Settings → Notifications → Webhooks" /> and choose{' '}
        <Menu of="Create webhook" />.
      </>,
      <>
        Choose the <Menu of="Event" />, format <Menu of="JSON" />, and the newest stable version of the API.
      </>,
      <>
        <Menu of="URL" />: the address above. Save; add one for each event.
      </>,
      <>
        With an app instead: subscribe in <Code>shopify.app.toml</Code> under <Code>[[webhooks.subscriptions]]</Code>,
        with the address above as <Code>uri</Code>, and deploy.
      </>,
    ],
    first: (
      <>
        Choose <Menu of="Send test notification" /> beside the webhook in the shop's admin, or run{' '}
        <Code>shopify app webhook trigger</Code>.
      </>
    ),
    docs: 'https://shopify.dev/docs/apps/build/webhooks',
  },
  STANDARD: {
    addressFirst: false,
    about: 'Any sender of Standard Webhooks: Svix, Clerk, Resend, Supabase, your own',
    secret: 'Take the secret that the sender shows for its endpoint, or generate one here and give it to the sender.',
    address: [
      'In the sender’s settings, add an endpoint with the address above, and choose its events.',
      <>
        Sender and Hookledger need the same secret: enter the one from here there, or <Menu of="rotate" /> to the one
        that the sender shows.
      </>,
      <>
        Your own sender sends the headers <Code>webhook-id</Code>, <Code>webhook-timestamp</Code> and{' '}
        <Code>webhook-signature</Code>: use a library of standardwebhooks.com.
      </>,
    ],
    first: 'Have the sender send an example, or send one by your own code.',
    docs: 'https://www.standardwebhooks.com/',
  },
};

export function AddressGuide({ kind }: { kind: ProviderKind }) {
  const { address, docs } = guides[kind];
  return (
    <>
      <List type="ordered" size="sm" spacing="xs">
        {address.map((step, index) => (
          // The steps of a service are fixed.
          <List.Item key={index}>{step}</List.Item>
        ))}
      </List>
      <Anchor href={docs} target="_blank" rel="noreferrer" size="sm" underline="always">
        The service's own documentation
      </Anchor>
    </>
  );
}
