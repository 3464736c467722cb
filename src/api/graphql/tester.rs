//! The tester: webhooks that people send to themselves, with what was sent and what was answered.

use async_graphql::{Context, Enum, Error, ID, InputObject, Object, SimpleObject};
use chrono::Utc;
use hookledger_aggregates::event::Stored as _;
use hookledger_aggregates::webhook::WebhookEvent;
use hookledger_aggregates::{OrganizationId, ProviderName as Name, WebhookId};
use hookledger_projections::PageRequest;
use hookledger_projections::webhook_logs::{self, WebhookFilter};

use super::context::{App, Changed, Viewer, tenant};
use super::errors::{Code, internal, not_found};
use super::mutations::{existing_provider, provider_id};
use super::provider::ProviderName;
use super::query::existing_organization;
use super::webhook::{Header, Webhook};
use crate::demo::samples;
use crate::demo::tester::{self, Draft, DraftError, Fault, Made};
use crate::directory::Endpoint;
use crate::log;

/// Bytes of a test webhook's body.
const MAX_BODY: usize = 256 << 10;

/// A webhook as its provider sends it, to begin with. Each time it is asked for it has another id and
/// the present time.
#[derive(SimpleObject)]
pub struct Sample {
    /// Unique within its provider.
    name: &'static str,
    /// For people.
    title: &'static str,
    event_type: &'static str,
    /// JSON. Sent twice, Stripe's is a duplicate: its id stands in it.
    body: String,
    /// What it comes with besides the signature, its type and its id.
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
pub(super) fn samples_of(provider: ProviderName) -> Vec<Sample> {
    samples::of(Name::from(provider)).map(Sample::from).collect()
}

/// What is to be wrong with a test webhook.
#[derive(Clone, Copy, Default, PartialEq, Eq, Enum)]
pub enum TestFault {
    #[default]
    None,
    /// It is signed, but another body was.
    BadSignature,
    /// It was signed an hour ago. For providers that sign a time: Stripe and senders of Standard Webhooks.
    StaleTimestamp,
    /// The last accepted test webhook of this provider again: its id, type and body; others are ignored.
    DuplicateOfLast,
}

/// A header of a test webhook.
#[derive(InputObject)]
struct TestHeaderInput {
    name: String,
    /// Empty: the header is left out, also where we would have set it.
    value: String,
}

#[derive(InputObject)]
struct SendTestWebhookInput {
    provider_id: ID,
    /// Left out: `test`. Stripe's and PayPal's stands in the body.
    event_type: Option<String>,
    /// Left out: a small JSON object. At most 256 KiB.
    body: Option<String>,
    /// They replace those that we set, the signature's among them; at most 30.
    headers: Option<Vec<TestHeaderInput>>,
    fault: Option<TestFault>,
    /// The provider's own id of the event, to repeat a test's; left out: a new one. Stripe's stands in the body. A
    /// test is never a duplicate of a genuine event, nor the other way round.
    event_id: Option<String>,
}

/// A request as it was made.
#[derive(SimpleObject)]
pub struct TestRequest {
    method: &'static str,
    url: String,
    /// The signature is redacted.
    headers: Vec<Header>,
    body: String,
}

impl TestRequest {
    pub(super) fn new(app: &App, slug: &str, provider: Name, made: &Made) -> Self {
        Self {
            method: "POST",
            url: format!("{}/webhooks/{slug}/{provider}", app.base_url),
            headers: made.shown().map(|(name, value)| Header::new(name.as_str(), &value)).collect(),
            body: made.body.clone(),
        }
    }
}

/// An answer as its sender got it.
#[derive(SimpleObject)]
pub struct TestAnswer {
    /// HTTP's.
    status: i32,
    /// JSON.
    body: String,
    /// Seconds after which to send again, where that was asked for.
    retry_after: Option<i32>,
}

impl From<crate::receive::WebhookAnswer> for TestAnswer {
    fn from(answer: crate::receive::WebhookAnswer) -> Self {
        let retry_after = answer.retry_after.map(|seconds| i32::try_from(seconds).unwrap_or(i32::MAX));
        Self { status: answer.status.as_u16().into(), body: answer.body, retry_after }
    }
}

#[derive(SimpleObject)]
struct SendTestWebhookPayload {
    /// What was sent.
    request: TestRequest,
    /// What a sender is answered.
    answer: TestAnswer,
    /// The row that it made, or made before; refused ones have one too. Null where nothing was logged.
    webhook: Option<Webhook>,
    /// The event was received before, by its id.
    duplicate: bool,
}

/// Reads of the tester.
#[derive(Default)]
pub struct TesterQuery;

#[Object]
impl TesterQuery {
    /// Webhooks as a provider sends them, to try things with. For everybody who is signed in.
    async fn sample_webhooks(&self, context: &Context<'_>, provider_name: ProviderName) -> Result<Vec<Sample>, Error> {
        Viewer::of(context)?;
        Ok(samples_of(provider_name))
    }
}

#[derive(Default)]
pub struct TesterMutation;

#[Object]
impl TesterMutation {
    /// Sends a webhook as its provider would, signed with a secret for this one alone, and has it verified and
    /// delivered as everybody's. It is marked as a test everywhere, in its delivery by `hookledger-test`. That it is
    /// refused is an answer, not an error. PayPal's cannot be sent: PayPal signs with a private key of its own.
    async fn send_test_webhook(
        &self,
        context: &Context<'_>,
        input: SendTestWebhookInput,
    ) -> Result<SendTestWebhookPayload, Error> {
        let (app, viewer) = (App::of(context)?, Viewer::of(context)?);
        let (organization, id) = provider_id(&input.provider_id)?;
        if !viewer.sees(organization) {
            return Err(not_found());
        }
        let provider: Name =
            existing_provider(context, organization, id).await?.provider_name.parse().map_err(internal)?;
        let slug = existing_organization(context, organization).await?.slug;
        let endpoint = app.receiver.endpoint(&slug, provider.as_str()).ok_or_else(not_found)?;
        let endpoint = tester::for_tests(&endpoint).map_err(unmade)?;
        let draft = draft(context, &endpoint, input).await?;
        let made = tester::make(&endpoint, &draft, Utc::now()).map_err(unmade)?;
        let request = TestRequest::new(app, &slug, provider, &made);
        let sent = tester::send(&app.receiver, &endpoint, made, viewer.metadata()).await;
        let webhook = match sent.webhook {
            Some(webhook) => Some(row_of(context, organization, webhook).await?),
            None => None,
        };
        Ok(SendTestWebhookPayload { request, answer: sent.answer.into(), webhook, duplicate: sent.duplicate })
    }
}

async fn draft(context: &Context<'_>, endpoint: &Endpoint, input: SendTestWebhookInput) -> Result<Draft, Error> {
    let fault = match input.fault.unwrap_or_default() {
        TestFault::None => Fault::None,
        TestFault::BadSignature => Fault::BadSignature,
        TestFault::StaleTimestamp => Fault::StaleTimestamp,
        TestFault::DuplicateOfLast => return last(context, endpoint).await,
    };
    let event_id = input.event_id.unwrap_or_else(|| format!("test_{}", Draft::fresh_id()));
    let event_type = input.event_type.unwrap_or_else(|| "test".to_owned());
    let body = input.body.unwrap_or_else(|| Draft::small_body(&event_id, &event_type, Utc::now()));
    if body.len() > MAX_BODY {
        let sentence = format!("The body of a test webhook can be at most {} KiB.", MAX_BODY >> 10);
        return Err(Code::BadUserInput.error(sentence));
    }
    let headers = input.headers.unwrap_or_default().into_iter().map(|header| (header.name, header.value)).collect();
    Ok(Draft { event_type, event_id, body, fault, headers })
}

/// The last accepted webhook again.
async fn last(context: &Context<'_>, endpoint: &Endpoint) -> Result<Draft, Error> {
    let organization = endpoint.organization;
    let filter = WebhookFilter {
        provider: Some(endpoint.provider.id),
        signature_valid: Some(true),
        is_test: Some(true),
        ..WebhookFilter::default()
    };
    let mut tenant = tenant(context, organization).await?;
    let page = webhook_logs::list(&mut *tenant, organization, &filter, PageRequest::first(1)).await;
    let Some(row) = page.map_err(internal)?.rows.into_iter().next() else {
        return Err(Code::Conflict.error("This provider hasn't accepted a test webhook yet."));
    };
    let body = log::bodies_of(&mut *tenant, organization, &[row.position]).await.map_err(internal)?;
    let body = body.into_iter().next().and_then(|(_, body)| String::from_utf8(body).ok());
    let body = body.filter(|body| body.len() <= MAX_BODY).ok_or_else(|| {
        Code::Conflict
            .error("The last test webhook can't be repeated: its body is no longer kept, is too large, or isn't text.")
    })?;
    Ok(Draft {
        event_type: row.event_type.unwrap_or_else(|| "test".to_owned()),
        event_id: row.provider_event_id.unwrap_or_else(Draft::fresh_id),
        body,
        fault: Fault::None,
        headers: Vec::new(),
    })
}

/// Why a draft was not made, for who drew it up.
pub(super) fn unmade(error: DraftError) -> Error {
    match error {
        DraftError::NoSecret => Code::Unavailable.error(error.to_string()),
        DraftError::Unsignable(_)
        | DraftError::NoTimestamp(_)
        | DraftError::BadHeader(_)
        | DraftError::BadEventId
        | DraftError::TooManyHeaders => Code::BadUserInput.error(error.to_string()),
    }
}

async fn row_of(context: &Context<'_>, organization: OrganizationId, webhook: WebhookId) -> Result<Webhook, Error> {
    let mut reading = tenant(context, organization).await?;
    let place = log::end_of_stream(&mut *reading, organization, WebhookEvent::AGGREGATE, webhook.uuid()).await;
    drop(reading);
    App::of(context)?.caught_up(Changed::Webhook, place.map_err(internal)?).await?;
    let mut tenant = tenant(context, organization).await?;
    let row = webhook_logs::find(&mut *tenant, organization, webhook).await.map_err(internal)?;
    row.map(Webhook::of).ok_or_else(not_found)
}
