//! The public demo: what may be asked without a session, and nothing else may. It knows one
//! organization, the sandbox, and reads it by a slug that nobody chooses.

use async_graphql::parser::types::{ExecutableDocument, Selection};
use async_graphql::{Context, Error, ErrorExtensions as _, InputObject, Json, Object, Request, SimpleObject};
use chrono::{DateTime, Utc};
use hookledger_aggregates::event::Stored as _;
use hookledger_aggregates::webhook::WebhookEvent;
use hookledger_aggregates::{Actor, Metadata, ProviderName as Name, RecordedEvent as Recorded, WebhookId};
use hookledger_projections::{webhook_logs, webhook_retries};
use uuid::Uuid;

use super::allowance::{Allowance, TooManyReads};
use super::context::{App, Viewer};
use super::errors::{Code, internal};
use super::provider::ProviderName;
use super::tester::{Sample, TestAnswer, TestRequest, samples_of, unmade};
use super::webhook::{LogPosition, WebhookStatus};
use crate::demo::samples;
use crate::demo::sandbox::{SLUG, Sandbox, SandboxError};
use crate::demo::tester::{self, Draft, Fault};
use crate::log;
use crate::platform::rate::TooOften;
use crate::platform::store::{Asker, Reading, Tenant};

/// The fields of the roots that need no session.
const FOR_GUESTS: &[&str] = &["demo", "demoWebhook", "sendDemoWebhook", "__typename"];
/// Root fields of one request.
const MAX_ROOTS: usize = 5;
/// Bytes of a body.
const MAX_BODY: usize = 64 << 10;
/// Events of a webhook that are shown.
const MAX_EVENTS: i64 = 50;

/// Somebody who is not signed in.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The client's address.
    pub address: String,
}

/// Whether whoever is not signed in may ask this: every root field is the demo's, and there are few.
/// Fragments at the root are not looked into, and refused.
#[must_use]
pub fn is_for_guests(document: &ExecutableDocument) -> bool {
    let for_guests = |selection: &Selection| match selection {
        Selection::Field(field) => FOR_GUESTS.contains(&field.node.name.node.as_str()),
        Selection::FragmentSpread(_) | Selection::InlineFragment(_) => false,
    };
    let roots = document.operations.iter().flat_map(|(_, operation)| &operation.node.selection_set.node.items);
    let roots: Vec<_> = roots.take(MAX_ROOTS + 1).collect();
    // What asks for nothing but a type's name is not about the demo.
    let about_demo = |selection: &Selection| match selection {
        Selection::Field(field) => field.node.name.node != "__typename",
        Selection::FragmentSpread(_) | Selection::InlineFragment(_) => false,
    };
    roots.len() <= MAX_ROOTS
        && roots.iter().all(|selection| for_guests(&selection.node))
        && roots.iter().any(|selection| about_demo(&selection.node))
}

/// A request of somebody who is not signed in.
pub fn with_guest(request: Request, guest: Guest) -> Request {
    request.data(guest).data(Allowance::of_guest())
}

/// Asked too often: with how many seconds to wait.
fn too_often(TooOften { retry_after }: TooOften) -> Error {
    let sentence = format!("Too many demo requests. Try again in {retry_after} s.");
    Code::RateLimited.error(sentence).extend_with(|_, extensions| extensions.set("retryAfter", retry_after))
}

fn unavailable(error: SandboxError) -> Error {
    match error {
        SandboxError::SlugTaken => Code::Unavailable.error(error.to_string()),
        SandboxError::Failed(reason) => {
            tracing::error!(error = reason, "the demo cannot be made");
            Code::Unavailable.error("The demo isn't available right now. Try again.")
        }
    }
}

fn sandbox<'a>(context: &Context<'a>) -> Result<&'a Sandbox, Error> {
    let app = App::of(context)?;
    app.sandbox.as_deref().ok_or_else(|| Code::NotFound.error("This deployment has no demo."))
}

/// Where the request came from, whoever made it.
fn address(context: &Context<'_>) -> Result<String, Error> {
    match context.data_opt::<Guest>() {
        Some(guest) => Ok(guest.address.clone()),
        None => Ok(Viewer::of(context)?.client.address.clone()),
    }
}

/// The sandbox's rows, for whoever asks.
async fn rows(context: &Context<'_>) -> Result<Tenant, Error> {
    Allowance::of(context)?.reads(1).map_err(TooManyReads::told)?;
    let asker = match context.data_opt::<Guest>() {
        Some(guest) => Asker::Guest(guest.address.clone()),
        None => Viewer::of(context)?.asker(),
    };
    let tenants = App::of(context)?.tenants.asked_by(asker, Reading::Page);
    tenants.of(Sandbox::organization()).await.map_err(internal)
}

/// What is needed to try how webhooks are received.
#[derive(Default)]
pub struct Demo;

#[Object]
impl Demo {
    /// The services that can be tried, and how each signs.
    async fn providers(&self, context: &Context<'_>) -> Result<Vec<DemoProvider>, Error> {
        let base_url = &App::of(context)?.base_url;
        Ok(Name::ALL.into_iter().map(|name| DemoProvider::new(name, base_url)).collect())
    }

    /// Webhooks as a service sends them.
    async fn samples(&self, provider_name: ProviderName) -> Vec<Sample> {
        samples_of(provider_name)
    }
}

/// A service in the demo.
#[derive(SimpleObject)]
pub struct DemoProvider {
    provider_name: ProviderName,
    /// Where its webhooks would go to.
    webhook_url: String,
    /// Whether we can sign as it does: PayPal signs with a private key of its own.
    can_sign: bool,
    /// The header that its signature stands in.
    signature_header: &'static str,
    /// What is signed, in words.
    signed_content: &'static str,
    /// How it is signed, and written.
    algorithm: &'static str,
    /// How old a signature may be, in seconds; null where no time is signed.
    tolerance_seconds: Option<i32>,
    /// Where the provider's own id of an event stands: the same id again is a duplicate.
    event_id_place: &'static str,
}

impl DemoProvider {
    fn new(name: Name, base_url: &str) -> Self {
        let (signature_header, signed_content, algorithm, tolerance_seconds, event_id_place) = match name {
            Name::Github => {
                ("x-hub-signature-256", "the body", "HMAC-SHA256, in hex", None, "the header x-github-delivery")
            }
            Name::Stripe => (
                "stripe-signature",
                "the timestamp, a dot, and the body",
                "HMAC-SHA256, in hex",
                Some(300),
                "id in the body",
            ),
            Name::Shopify => {
                ("x-shopify-hmac-sha256", "the body", "HMAC-SHA256, in base64", None, "the header x-shopify-webhook-id")
            }
            Name::Standard => (
                "webhook-signature",
                "the ID, a dot, the timestamp, a dot, and the body",
                "HMAC-SHA256, in base64",
                Some(300),
                "the header webhook-id",
            ),
            Name::Paypal => (
                "paypal-transmission-sig",
                "the transmission ID, its time, the webhook ID, and the CRC32 of the body",
                "RSA with SHA-256, in base64",
                Some(3 * 86_400),
                "id in the body",
            ),
        };
        Self {
            provider_name: name.into(),
            webhook_url: format!("{base_url}/webhooks/{SLUG}/{name}"),
            can_sign: Sandbox::signs_for(name),
            signature_header,
            signed_content,
            algorithm,
            tolerance_seconds,
            event_id_place,
        }
    }
}

/// A webhook of the demo. It has no headers and no body here: others may have sent it.
pub struct DemoWebhook(webhook_logs::WebhookLog);

#[Object]
impl DemoWebhook {
    async fn webhook_id(&self) -> Uuid {
        self.0.webhook_id
    }
    async fn event_type(&self) -> Option<&str> {
        self.0.event_type.as_deref()
    }
    /// The provider's own id of the event.
    async fn provider_event_id(&self) -> Option<&str> {
        self.0.provider_event_id.as_deref()
    }
    async fn status(&self) -> Result<WebhookStatus, Error> {
        self.0.status().map(WebhookStatus::from).map_err(internal)
    }
    async fn signature_valid(&self) -> bool {
        self.0.signature_valid
    }
    /// The code of why it was refused; null where it was accepted.
    async fn rejection(&self) -> Option<&str> {
        self.0.rejection.as_deref()
    }
    async fn error_message(&self) -> Option<&str> {
        self.0.error_message.as_deref()
    }
    async fn received_at(&self) -> DateTime<Utc> {
        self.0.received_at
    }
    async fn processed_at(&self) -> Option<DateTime<Utc>> {
        self.0.processed_at
    }
    /// SHA-256 of the body, in hex.
    async fn body_sha256(&self) -> &str {
        &self.0.body_sha256
    }
    /// Bytes.
    async fn body_size(&self) -> i64 {
        self.0.body_size
    }
    /// Further deliveries of the same event.
    async fn duplicate_count(&self) -> i32 {
        self.0.duplicate_count
    }
    /// A duplicate came with another body.
    async fn body_differs(&self) -> bool {
        self.0.body_differs
    }
    /// Every try at processing.
    async fn attempts(&self, context: &Context<'_>) -> Result<Vec<DemoAttempt>, Error> {
        let mut tenant = rows(context).await?;
        let id = WebhookId::new(self.0.webhook_id);
        let rows = webhook_retries::of_webhooks(&mut *tenant, Sandbox::organization(), &[id]).await;
        let attempt = |row: webhook_retries::WebhookAttempt| DemoAttempt {
            attempt_number: row.attempt_number,
            attempted_at: row.attempted_at,
            ended_at: row.ended_at,
            succeeded: row.succeeded,
            duration_ms: row.duration_ms,
            error_details: row.error_details,
        };
        Ok(rows.map_err(internal)?.into_iter().map(attempt).collect())
    }
    /// What the log says of it, step by step; at most 50 events.
    async fn events(&self, context: &Context<'_>) -> Result<Vec<DemoEvent>, Error> {
        let mut tenant = rows(context).await?;
        let id = WebhookId::new(self.0.webhook_id);
        let (organization, most) = (Sandbox::organization(), MAX_EVENTS);
        let events = log::streams_of(&mut *tenant, organization, WebhookEvent::AGGREGATE, &[id], most, most).await;
        let began = self.0.received_at;
        events.map_err(internal)?.into_iter().map(|event| DemoEvent::new(event, began)).collect()
    }
}

/// A try at processing in the demo, where recording a webhook is its processing.
#[derive(SimpleObject)]
pub struct DemoAttempt {
    attempt_number: i32,
    attempted_at: DateTime<Utc>,
    /// While null, it runs.
    ended_at: Option<DateTime<Utc>>,
    succeeded: Option<bool>,
    duration_ms: Option<i64>,
    error_details: Option<String>,
}

/// An event as the log holds it, without where it came from.
#[derive(SimpleObject)]
pub struct DemoEvent {
    position: LogPosition,
    sequence: i64,
    event_type: &'static str,
    payload: Json<serde_json::Value>,
    recorded_at: DateTime<Utc>,
    /// Milliseconds after it was received.
    offset_ms: i64,
}

impl DemoEvent {
    fn new(recorded: Recorded, began: DateTime<Utc>) -> Result<Self, Error> {
        let (_, event_type, payload) = recorded.event.stored().map_err(internal)?;
        Ok(Self {
            position: LogPosition { partition: recorded.partition.number(), position: recorded.position },
            sequence: recorded.sequence,
            event_type,
            payload: Json(serde_json::from_str(&payload).map_err(internal)?),
            recorded_at: recorded.recorded_at,
            offset_ms: (recorded.recorded_at - began).num_milliseconds(),
        })
    }
}

#[derive(InputObject)]
struct SendDemoWebhookInput {
    provider_name: ProviderName,
    /// The name of one of its samples; left out with a body.
    sample: Option<String>,
    /// At most 64 KiB. Left out: the sample's.
    body: Option<String>,
    /// Left out: the sample's, or `test`.
    event_type: Option<String>,
    /// Sign another body than the one that is sent.
    #[graphql(default)]
    break_signature: bool,
    /// Sign with the time of an hour ago, where the provider signs a time.
    #[graphql(default)]
    stale_timestamp: bool,
    /// The provider's own id of the event, to send one again; left out: a new one. Stripe's stands in
    /// the body.
    event_id: Option<String>,
}

#[derive(SimpleObject)]
struct SendDemoWebhookPayload {
    /// What was sent, signed.
    request: TestRequest,
    /// What a sender is answered.
    answer: TestAnswer,
    /// Under which id to look for it with `demoWebhook`; null where nothing was logged.
    webhook_id: Option<Uuid>,
    /// The event was received before, by its id.
    duplicate: bool,
    /// The provider's own id that it was sent under, to send it again.
    event_id: String,
}

/// Reads of the demo.
#[derive(Default)]
pub struct DemoQuery;

#[Object]
impl DemoQuery {
    /// The public demo. Needs no session.
    async fn demo(&self, context: &Context<'_>) -> Result<Demo, Error> {
        sandbox(context)?;
        address(context)?;
        Ok(Demo)
    }

    /// A webhook of the demo's sandbox as it is now: null until the read model knows of it, which takes
    /// a moment. Needs no session.
    async fn demo_webhook(&self, context: &Context<'_>, webhook_id: Uuid) -> Result<Option<DemoWebhook>, Error> {
        let sandbox = sandbox(context)?;
        address(context)?;
        if !sandbox.is_there().await.map_err(unavailable)? {
            return Ok(None);
        }
        let mut tenant = rows(context).await?;
        let row = webhook_logs::find(&mut *tenant, Sandbox::organization(), WebhookId::new(webhook_id)).await;
        Ok(row.map_err(internal)?.map(DemoWebhook))
    }
}

#[derive(Default)]
pub struct DemoMutation;

#[Object]
impl DemoMutation {
    /// Signs a webhook as its provider would, with a secret for this one alone, and has the demo's sandbox verify
    /// it as everybody's. Needs no session. 10 at once and then one every 6 s for a client; for all
    /// together 150 and then one every 45 s.
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
        // Who plays here leaves no address.
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

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;

    #[test]
    fn guests_ask_for_the_demo_and_for_nothing_else() {
        let for_guests = |query: &str| is_for_guests(&parse_query(query).unwrap());
        for good in [
            "{ demo { samples(providerName: GITHUB) { name } } }",
            "query A { a: demo { providers { webhookUrl } } __typename }",
            "mutation { sendDemoWebhook(input: {providerName: GITHUB, sample: \"push\"}) { webhookId } }",
        ] {
            assert!(for_guests(good), "{good}");
        }
        for bad in [
            "{ viewer { isSuperAdmin } }",
            "{ demo { __typename } viewer { isSuperAdmin } }",
            "{ demo: viewer { isSuperAdmin } }",
            "{ __schema { types { name } } }",
            "{ __type(name: \"Query\") { name } }",
            "{ ...F } fragment F on Query { viewer { isSuperAdmin } }",
            "{ ... on Query { viewer { isSuperAdmin } } }",
            "query A { demo { __typename } } query B { viewer { isSuperAdmin } }",
            "mutation { createOrganization(input: {name: \"x\", slug: \"x\"}) { organization { id } } }",
            "{ __typename }",
            "{ a: demo { __typename } b: __typename c: __typename d: __typename e: __typename f: __typename }",
        ] {
            assert!(!for_guests(bad), "{bad}");
        }
    }
}
