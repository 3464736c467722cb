//! The types of the public demo. They read one organization, the sandbox.

use async_graphql::{Context, Error, Json, Object, SimpleObject};
use chrono::{DateTime, Utc};
use hookledger_aggregates::{ProviderName as Name, RecordedEvent as Recorded, WebhookId};
use hookledger_projections::{webhook_logs, webhook_retries};
use uuid::Uuid;

use super::position::LogPosition;
use super::provider::ProviderName;
use super::tester::{Sample, samples_of};
use super::webhook::status::WebhookStatus;
use crate::api::graphql::context::App;
use crate::api::graphql::errors::internal;
use crate::api::graphql::guards::guests::rows;
use crate::demo::sandbox::{SLUG, Sandbox};
use crate::log;

/// Maximum number of events shown of a webhook.
const MAX_EVENTS: i64 = 50;

/// Everything needed to try how webhooks are received.
#[derive(Default)]
pub struct Demo;

#[Object]
impl Demo {
    /// The services that can be tried, and how each signs.
    async fn providers(&self, context: &Context<'_>) -> Result<Vec<DemoProvider>, Error> {
        let base_url = &App::of(context)?.base_url;
        Ok(Name::ALL.into_iter().map(|name| DemoProvider::new(name, base_url)).collect())
    }

    /// Sample webhooks of a service.
    async fn samples(&self, provider_name: ProviderName) -> Vec<Sample> {
        samples_of(provider_name)
    }
}

/// A service in the demo.
#[derive(SimpleObject)]
pub struct DemoProvider {
    provider_name: ProviderName,
    /// Receiving URL of its webhooks.
    webhook_url: String,
    /// Whether the server can sign like the service: PayPal signs with its own private key.
    can_sign: bool,
    /// The header with its signature.
    signature_header: &'static str,
    /// The signed content, in words.
    signed_content: &'static str,
    /// The algorithm and encoding of the signature.
    algorithm: &'static str,
    /// Maximum age of a signature in seconds; null if no time is signed.
    tolerance_seconds: Option<i32>,
    /// Location of the provider's event ID: the same ID again is a duplicate.
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

/// A webhook of the demo. Headers and body are left out, because others may have sent it.
pub struct DemoWebhook(pub(crate) webhook_logs::WebhookLog);

#[Object]
impl DemoWebhook {
    async fn webhook_id(&self) -> Uuid {
        self.0.webhook_id
    }
    async fn event_type(&self) -> Option<&str> {
        self.0.event_type.as_deref()
    }
    /// The provider's event ID.
    async fn provider_event_id(&self) -> Option<&str> {
        self.0.provider_event_id.as_deref()
    }
    async fn status(&self) -> Result<WebhookStatus, Error> {
        self.0.status().map(WebhookStatus::from).map_err(internal)
    }
    async fn signature_valid(&self) -> bool {
        self.0.signature_valid
    }
    /// The code of its rejection; null if it was accepted.
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
    /// Number of duplicates.
    async fn duplicate_count(&self) -> i32 {
        self.0.duplicate_count
    }
    /// A duplicate had a different body.
    async fn body_differs(&self) -> bool {
        self.0.body_differs
    }
    /// All attempts.
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
    /// The webhook's events, in order; at most 50.
    async fn events(&self, context: &Context<'_>) -> Result<Vec<DemoEvent>, Error> {
        let mut tenant = rows(context).await?;
        let id = WebhookId::new(self.0.webhook_id);
        let (organization, most) = (Sandbox::organization(), MAX_EVENTS);
        let stories = log::stories_of(&mut tenant, organization, &[id], most, most).await;
        let began = self.0.received_at;
        stories
            .map_err(internal)?
            .remove(&id)
            .unwrap_or_default()
            .into_iter()
            .map(|event| DemoEvent::new(event, began))
            .collect()
    }
}

/// An attempt in the demo, where storing a webhook is its processing.
#[derive(SimpleObject)]
pub struct DemoAttempt {
    attempt_number: i32,
    attempted_at: DateTime<Utc>,
    /// Null while it is running.
    ended_at: Option<DateTime<Utc>>,
    succeeded: Option<bool>,
    duration_ms: Option<i64>,
    error_details: Option<String>,
}

/// An event of the log, without its origin.
#[derive(SimpleObject)]
pub struct DemoEvent {
    position: LogPosition,
    sequence: i64,
    event_type: &'static str,
    payload: Json<serde_json::Value>,
    recorded_at: DateTime<Utc>,
    /// Milliseconds since the receipt.
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
