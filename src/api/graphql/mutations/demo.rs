//! Sending webhooks in the public demo, which needs no session.

use async_graphql::{Context, Error, ErrorExtensions as _, InputObject, Object, SimpleObject};
use chrono::Utc;
use hookledger_aggregates::{Actor, Metadata, ProviderName as Name, WebhookId};
use uuid::Uuid;

use super::tester::unmade;
use crate::api::graphql::context::App;
use crate::api::graphql::errors::Code;
use crate::api::graphql::guards::guests::{address, sandbox, unavailable};
use crate::api::graphql::types::provider::ProviderName;
use crate::api::graphql::types::tester::{TestAnswer, TestRequest};
use crate::demo::samples;
use crate::demo::sandbox::{SLUG, Sandbox};
use crate::demo::tester::{self, Draft, Fault};
use crate::platform::rate::TooOften;

/// Maximum size of a body in bytes.
const MAX_BODY: usize = 64 << 10;

#[derive(InputObject)]
struct SendDemoWebhookInput {
    provider_name: ProviderName,
    /// Name of a sample; omit it if there is a body.
    sample: Option<String>,
    /// At most 64 KiB. Defaults to the sample's body.
    body: Option<String>,
    /// Defaults to the sample's type, or `test`.
    event_type: Option<String>,
    /// Sign a different body than the one that is sent.
    #[graphql(default)]
    break_signature: bool,
    /// Sign with the time of an hour ago, if the provider signs a time.
    #[graphql(default)]
    stale_timestamp: bool,
    /// The provider's event ID, to send an event again; defaults to a new one. Stripe's is in the body.
    event_id: Option<String>,
}

#[derive(SimpleObject)]
struct SendDemoWebhookPayload {
    /// The signed request.
    request: TestRequest,
    /// The answer to the sender.
    answer: TestAnswer,
    /// ID for `demoWebhook`; null if nothing was logged.
    webhook_id: Option<Uuid>,
    /// The event was received before, according to its ID.
    duplicate: bool,
    /// The provider's event ID that was used, to send the event again.
    event_id: String,
}

#[derive(Default)]
pub struct DemoMutation;

#[Object]
impl DemoMutation {
    /// Signs a webhook as its provider would, with a secret for this one alone, and lets the demo's sandbox
    /// verify it like any other. Needs no session. Per client 10 at once, then one every 6 s; for all clients
    /// together 150, then one every 45 s.
    async fn send_demo_webhook(
        &self,
        context: &Context<'_>,
        input: SendDemoWebhookInput,
    ) -> Result<SendDemoWebhookPayload, Error> {
        let (app, sandbox) = (App::of(context)?, sandbox(context)?);
        let address = address(context)?;
        let provider = Name::from(input.provider_name);
        let draft = draft(provider, input)?;
        sandbox.admit_webhook(&address).map_err(too_often)?;
        let endpoint = sandbox.endpoint(provider).await.map_err(unavailable)?;
        let endpoint = tester::for_tests(&endpoint).map_err(unmade)?;
        let made = tester::make(&endpoint, &draft, Utc::now()).map_err(unmade)?;
        let request = TestRequest::new(app, SLUG, provider, &made);
        // Visitors of the demo leave no address.
        let by = Metadata { actor: Actor::Sender, ..Metadata::default() };
        let sent = tester::send(&app.receiver, &endpoint, made, by).await;
        Ok(SendDemoWebhookPayload {
            request,
            answer: sent.answer.into(),
            webhook_id: sent.webhook.map(WebhookId::uuid),
            duplicate: sent.duplicate,
            event_id: draft.event_id,
        })
    }
}

fn draft(provider: Name, input: SendDemoWebhookInput) -> Result<Draft, Error> {
    let bad = |sentence: String| Code::BadUserInput.error(sentence);
    if !Sandbox::signs_for(provider) {
        return Err(bad("PayPal signs with its own private key, so only PayPal can sign.".to_owned()));
    }
    let sample = match input.sample.as_deref().map(|name| samples::find(provider, name)) {
        Some(None) => return Err(bad(format!("{provider} has no sample with this name."))),
        Some(Some(sample)) => Some(sample),
        None => None,
    };
    let fault = match (input.break_signature, input.stale_timestamp) {
        (true, true) => return Err(bad("Simulate one problem at a time.".to_owned())),
        (true, false) => Fault::BadSignature,
        (false, true) => Fault::StaleTimestamp,
        (false, false) => Fault::None,
    };
    let now = Utc::now();
    let fresh = Draft::fresh_id();
    let event_id = input.event_id.unwrap_or_else(|| format!("demo_{fresh}"));
    let event_type = input.event_type.or_else(|| sample.map(|sample| sample.event_type.to_owned()));
    let event_type = event_type.unwrap_or_else(|| "test".to_owned());
    let body = match (input.body, sample) {
        (Some(body), _) => body,
        (None, Some(sample)) => sample.body(&fresh, now),
        (None, None) => return Err(bad("Name a sample or provide a body.".to_owned())),
    };
    if body.len() > MAX_BODY {
        return Err(bad(format!("The body of a demo webhook can be at most {} KiB.", MAX_BODY >> 10)));
    }
    let headers = sample.map_or(&[][..], |sample| sample.headers);
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Ok(Draft { event_type, event_id, body, fault, headers })
}

/// The error for a client over its rate, with the seconds to wait.
fn too_often(TooOften { retry_after }: TooOften) -> Error {
    let sentence = format!("Too many demo requests. Try again in {retry_after} s.");
    Code::RateLimited.error(sentence).extend_with(|_, extensions| extensions.set("retryAfter", retry_after))
}
