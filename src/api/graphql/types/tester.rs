//! Samples for test webhooks, and the results of sending them.

use async_graphql::SimpleObject;
use chrono::Utc;
use hookledger_aggregates::ProviderName as Name;

use super::provider::ProviderName;
use super::webhook::request::Header;
use crate::api::graphql::context::App;
use crate::demo::samples;
use crate::demo::tester::{Draft, Made};

/// A sample webhook of a provider. Each query returns it with a new ID and the current time.
#[derive(SimpleObject)]
pub struct Sample {
    /// Unique within its provider.
    name: &'static str,
    /// For people.
    title: &'static str,
    event_type: &'static str,
    /// JSON. Stripe's is a duplicate if sent twice, because its ID is in it.
    body: String,
    /// Its headers, besides the signature, its type and its ID.
    headers: Vec<Header>,
}

impl From<&samples::Sample> for Sample {
    fn from(sample: &samples::Sample) -> Self {
        let header = |(name, value): &(&str, &str)| Header::new(name, value);
        Self {
            name: sample.name,
            title: sample.title,
            event_type: sample.event_type,
            body: sample.body(&Draft::fresh_id(), Utc::now()),
            headers: sample.headers.iter().map(header).collect(),
        }
    }
}

/// The samples of a provider.
pub(crate) fn samples_of(provider: ProviderName) -> Vec<Sample> {
    samples::of(Name::from(provider)).map(Sample::from).collect()
}

/// The request that was sent.
#[derive(SimpleObject)]
pub struct TestRequest {
    method: &'static str,
    url: String,
    /// The signature is redacted.
    headers: Vec<Header>,
    body: String,
}

impl TestRequest {
    pub(crate) fn new(app: &App, slug: &str, provider: Name, made: &Made) -> Self {
        Self {
            method: "POST",
            url: format!("{}/webhooks/{slug}/{provider}", app.base_url),
            headers: made.shown().map(|(name, value)| Header::new(name.as_str(), &value)).collect(),
            body: made.body.clone(),
        }
    }
}

/// The answer to the sender.
#[derive(SimpleObject)]
pub struct TestAnswer {
    /// HTTP status.
    status: i32,
    /// JSON.
    body: String,
    /// Seconds after which to send again, if requested.
    retry_after: Option<i32>,
}

impl From<crate::receive::WebhookAnswer> for TestAnswer {
    fn from(answer: crate::receive::WebhookAnswer) -> Self {
        let retry_after = answer.retry_after.map(|seconds| i32::try_from(seconds).unwrap_or(i32::MAX));
        Self { status: answer.status.as_u16().into(), body: answer.body, retry_after }
    }
}
