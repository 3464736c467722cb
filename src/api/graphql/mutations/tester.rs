//! Sending test webhooks.

use async_graphql::{Context, Enum, Error, ErrorExtensions as _, ID, InputObject, Object, SimpleObject};
use chrono::Utc;
use hookledger_aggregates::event::Stored as _;
use hookledger_aggregates::webhook::WebhookEvent;
use hookledger_aggregates::{OrganizationId, ProviderName as Name, UserId, WebhookId};
use hookledger_projections::webhook_logs::WebhookFilter;
use hookledger_projections::{PageRequest, webhook_logs};

use crate::api::graphql::context::{App, Changed, tenant};
use crate::api::graphql::errors::{Code, internal, not_found};
use crate::api::graphql::guards::named::{existing_organization, existing_provider, provider_id};
use crate::api::graphql::guards::rights::Viewer;
use crate::api::graphql::types::tester::{TestAnswer, TestRequest};
use crate::api::graphql::types::webhook::Webhook;
use crate::demo::tester::{self, Draft, DraftError, Fault};
use crate::directory::Endpoint;
use crate::log;
use crate::platform::rate::TooOften;

/// Maximum size of a test webhook's body in bytes.
const MAX_BODY: usize = 256 << 10;

/// A problem to simulate.
#[derive(Clone, Copy, Default, PartialEq, Eq, Enum)]
pub enum TestFault {
    #[default]
    None,
    /// The signature is for another body.
    BadSignature,
    /// It was signed an hour ago. For providers that sign a time: Stripe and senders of Standard Webhooks.
    StaleTimestamp,
    /// Repeats the last accepted test webhook of this provider, with its ID, type and body; other fields are
    /// ignored.
    DuplicateOfLast,
}

/// A header of a test webhook.
#[derive(InputObject)]
struct TestHeaderInput {
    name: String,
    /// Empty to omit the header, even one that the server would set.
    value: String,
}

#[derive(InputObject)]
struct SendTestWebhookInput {
    provider_id: ID,
    /// Defaults to `test`. Stripe's and PayPal's are in the body.
    event_type: Option<String>,
    /// Defaults to a small JSON object. At most 256 KiB.
    body: Option<String>,
    /// Replace the headers that the server sets, including the signature; at most 30.
    headers: Option<Vec<TestHeaderInput>>,
    fault: Option<TestFault>,
    /// The provider's event ID, to repeat a test; defaults to a new one. Stripe's is in the body. A test is
    /// never a duplicate of a genuine event, or vice versa.
    event_id: Option<String>,
}

#[derive(SimpleObject)]
struct SendTestWebhookPayload {
    /// The request that was sent.
    request: TestRequest,
    /// The answer to the sender.
    answer: TestAnswer,
    /// The webhook that it created, or an earlier one; rejected requests have one too. Null if nothing was
    /// logged.
    webhook: Option<Webhook>,
    /// The event was received before, according to its ID.
    duplicate: bool,
}

#[derive(Default)]
pub struct TesterMutation;

#[Object]
impl TesterMutation {
    /// Sends a webhook as its provider would, signed with a secret for this one alone, and verifies and
    /// delivers it like any other. It is marked as a test everywhere, and in its delivery by
    /// `hookledger-test`. A rejection is an answer, not an error. PayPal's webhooks cannot be sent, because
    /// PayPal signs with its own private key.
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

fn too_often(TooOften { retry_after }: TooOften) -> Error {
    Code::RateLimited
        .error(format!("Too many test webhooks. Try again in {retry_after} s."))
        .extend_with(|_, extensions| extensions.set("retryAfter", retry_after))
}

async fn draft(context: &Context<'_>, endpoint: &Endpoint, input: SendTestWebhookInput) -> Result<Draft, Error> {
    App::of(context)?.limits.test(UserId::new(Viewer::of(context)?.user.id)).map_err(too_often)?;
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

/// Repeats the last accepted webhook.
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

/// The error for an invalid draft.
pub(crate) fn unmade(error: DraftError) -> Error {
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
