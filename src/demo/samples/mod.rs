//! Sample webhooks, one file each, as their providers send them: for the tester, the demo and the sample
//! data.
//!
//! Files contain bodies. `{{id}}` becomes an ID that is new each time, `{{now}}` the time as in RFC 3339,
//! `{{unix}}` the time in seconds.

use chrono::{DateTime, SecondsFormat, Utc};
use hookledger_aggregates::ProviderName;

/// A sample of a provider's webhooks.
#[derive(Debug)]
pub struct Sample {
    pub provider: ProviderName,
    /// Unique within its provider.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    pub event_type: &'static str,
    /// Its headers, besides the signature and those with type and ID.
    pub headers: &'static [(&'static str, &'static str)],
    template: &'static str,
}

impl Sample {
    /// The body, with a new ID and the given time.
    #[must_use]
    pub fn body(&self, id: &str, now: DateTime<Utc>) -> String {
        self.template
            .replace("{{id}}", id)
            .replace("{{now}}", &now.to_rfc3339_opts(SecondsFormat::Secs, true))
            .replace("{{unix}}", &now.timestamp().to_string())
    }
}

/// The samples of a provider.
pub fn of(provider: ProviderName) -> impl Iterator<Item = &'static Sample> {
    ALL.iter().filter(move |sample| sample.provider == provider)
}

/// One sample of a provider.
#[must_use]
pub fn find(provider: ProviderName, name: &str) -> Option<&'static Sample> {
    of(provider).find(|sample| sample.name == name)
}

const GITHUB: &[(&str, &str)] = &[("user-agent", "GitHub-Hookshot/044aadd"), ("x-github-hook-id", "292430182")];
const STRIPE: &[(&str, &str)] = &[("user-agent", "Stripe/1.0 (+https://stripe.com/docs/webhooks)")];
const SHOPIFY: &[(&str, &str)] = &[
    ("user-agent", "Shopify-Captain-Hook"),
    ("x-shopify-api-version", "2025-01"),
    ("x-shopify-shop-domain", "acme-coffee.myshopify.com"),
];
const PAYPAL: &[(&str, &str)] = &[("user-agent", "PayPal/AUHD-214.0-58853602")];
const STANDARD: &[(&str, &str)] = &[("user-agent", "Svix-Webhooks/1.71.0")];

/// Builds the list: provider, headers, and for each file its name, title and event type.
macro_rules! samples {
    ($($provider:ident $headers:ident { $($name:literal $event_type:literal $title:literal $file:literal)* })*) => {
        &[$($(Sample {
            provider: ProviderName::$provider,
            name: $name,
            title: $title,
            event_type: $event_type,
            headers: $headers,
            template: include_str!($file),
        },)*)*]
    };
}

/// Every sample.
pub const ALL: &[Sample] = samples! {
    Github GITHUB {
        "push" "push" "Commit pushed" "github-push.json"
        "pull_request" "pull_request" "Pull request opened" "github-pull_request.json"
        "issues" "issues" "Issue opened" "github-issues.json"
        "release" "release" "Release published" "github-release.json"
        "ping" "ping" "Webhook set up" "github-ping.json"
    }
    Stripe STRIPE {
        "charge.succeeded" "charge.succeeded" "Payment succeeded" "stripe-charge.succeeded.json"
        "payment_intent.payment_failed" "payment_intent.payment_failed" "Payment declined"
            "stripe-payment_intent.payment_failed.json"
        "invoice.paid" "invoice.paid" "Invoice paid" "stripe-invoice.paid.json"
        "customer.subscription.deleted" "customer.subscription.deleted" "Subscription ended"
            "stripe-customer.subscription.deleted.json"
    }
    Shopify SHOPIFY {
        "orders-create" "orders/create" "Order placed" "shopify-orders-create.json"
        "products-update" "products/update" "Product updated" "shopify-products-update.json"
        "app-uninstalled" "app/uninstalled" "App uninstalled" "shopify-app-uninstalled.json"
    }
    Paypal PAYPAL {
        "PAYMENT.CAPTURE.COMPLETED" "PAYMENT.CAPTURE.COMPLETED" "Payment captured"
            "paypal-PAYMENT.CAPTURE.COMPLETED.json"
        "BILLING.SUBSCRIPTION.CANCELLED" "BILLING.SUBSCRIPTION.CANCELLED" "Subscription canceled"
            "paypal-BILLING.SUBSCRIPTION.CANCELLED.json"
    }
    Standard STANDARD {
        "user.created" "user.created" "User signed up" "standard-user.created.json"
        "invoice.paid" "invoice.paid" "Invoice paid" "standard-invoice.paid.json"
        "message.bounced" "message.bounced" "Email bounced" "standard-message.bounced.json"
    }
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_sample_is_json_and_says_what_it_is() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        for sample in ALL {
            let body: serde_json::Value = serde_json::from_str(&sample.body("0a1b", now)).expect(sample.name);
            assert!(!body.to_string().contains("{{"), "{}", sample.name);
            if matches!(sample.provider, ProviderName::Stripe | ProviderName::Standard) {
                assert_eq!(body["type"], sample.event_type);
            }
        }
    }

    #[test]
    fn every_provider_has_samples_and_each_has_its_name() {
        for provider in ProviderName::ALL {
            let names: BTreeSet<_> = of(provider).map(|sample| sample.name).collect();
            assert!(names.len() >= 2 && names.len() == of(provider).count(), "{provider:?}");
            assert!(names.iter().all(|name| find(provider, name).is_some()));
        }
    }
}
