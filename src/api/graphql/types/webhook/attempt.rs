//! Attempts to deliver a webhook.

use async_graphql::{ComplexObject, Context, Error, SimpleObject};
use chrono::{DateTime, Utc};
use hookledger_aggregates::delivery::PENDING_TIMEOUT;
use hookledger_aggregates::destination::DestinationSettings;
use hookledger_aggregates::{DeliveryId, DestinationId, OrganizationId, WebhookId};
use hookledger_projections::webhook_retries;
use uuid::Uuid;

use crate::api::graphql::guards::allowance::Allowance;
use crate::api::graphql::rows::{HeadersOf, ResponsesOf, SettingsOf, load};
use crate::deliver;

/// One attempt at a delivery of a webhook.
#[derive(Clone, SimpleObject)]
#[graphql(complex)]
pub struct Attempt {
    #[graphql(skip)]
    of: (OrganizationId, WebhookId),
    /// Position of the webhook's first event.
    #[graphql(skip)]
    position: i64,
    /// 1 is the first attempt, 2 to 4 are retries 1 to 3.
    attempt_number: i32,
    attempted_at: DateTime<Utc>,
    /// Null while it is running.
    ended_at: Option<DateTime<Utc>>,
    succeeded: Option<bool>,
    status_code: Option<i32>,
    duration_ms: Option<i64>,
    error_details: Option<String>,
    /// The delivery that was attempted.
    delivery_id: Uuid,
    #[graphql(skip)]
    destination: DestinationId,
}

/// An attempt after the first.
#[derive(SimpleObject)]
pub struct WebhookRetry {
    /// The delivery that was retried.
    delivery_id: Uuid,
    attempt_number: i32,
    attempted_at: DateTime<Utc>,
    error_details: Option<String>,
}

impl From<webhook_retries::WebhookAttempt> for WebhookRetry {
    fn from(row: webhook_retries::WebhookAttempt) -> Self {
        Self {
            delivery_id: row.delivery_id,
            attempt_number: row.attempt_number,
            attempted_at: row.attempted_at,
            error_details: row.error_details,
        }
    }
}

#[ComplexObject]
impl Attempt {
    /// The URL of the destination when the attempt began; null if nothing was sent.
    async fn request_url(&self, context: &Context<'_>) -> Result<Option<String>, Error> {
        Ok(self.destination(context).await?.map(|destination| destination.url))
    }

    /// Names of the request's headers, including the destination's own, and the sender's while the request is
    /// stored. Values are not stored, because they are secrets and signatures.
    async fn request_header_names(&self, context: &Context<'_>) -> Result<Vec<String>, Error> {
        let Some(destination) = self.destination(context).await? else { return Ok(Vec::new()) };
        let received = load(context, HeadersOf(self.of.0, self.position)).await?.unwrap_or_default();
        let received = received.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        Ok(deliver::header_names(received, destination.original_signature, &destination.header_names))
    }

    /// The beginning of the destination's response, at most 16 KiB, while it is stored; invalid UTF-8 is
    /// replaced.
    async fn response_excerpt(&self, context: &Context<'_>) -> Option<Result<String, Error>> {
        let excerpt = async {
            Allowance::of(context)?.body(MAX_EXCERPT, 1)?;
            let (organization, webhook) = self.of;
            let all = load(context, ResponsesOf(organization, webhook)).await?.unwrap_or_default();
            let key = (DeliveryId::new(self.delivery_id), self.attempt_number);
            let mine = all.into_iter().find(|(delivery, attempt, _)| (*delivery, *attempt) == key);
            let mine = mine.map(|(_, _, excerpt)| String::from_utf8_lossy(&excerpt).into_owned());
            mine.iter().try_for_each(|text| Allowance::of(context)?.hold_text(text))?;
            Ok(mine)
        };
        excerpt.await.transpose()
    }
}

impl Attempt {
    async fn destination(&self, context: &Context<'_>) -> Result<Option<DestinationSettings>, Error> {
        // An attempt that no worker started was sent nowhere.
        if self.error_details.as_deref() == Some(PENDING_TIMEOUT) {
            return Ok(None);
        }
        let changes = load(context, SettingsOf(self.of.0, self.destination)).await?.unwrap_or_default();
        let before = changes.into_iter().take_while(|(at, _)| *at <= self.attempted_at).last();
        Ok(before.map(|(_, settings)| settings))
    }

    pub(super) fn new(of: (OrganizationId, WebhookId), position: i64, row: &webhook_retries::WebhookAttempt) -> Self {
        Self {
            of,
            position,
            attempt_number: row.attempt_number,
            attempted_at: row.attempted_at,
            ended_at: row.ended_at,
            succeeded: row.succeeded,
            status_code: row.status_code,
            duration_ms: row.duration_ms,
            error_details: row.error_details.clone(),
            delivery_id: row.delivery_id,
            destination: DestinationId::new(row.destination_id),
        }
    }
}

/// Maximum stored size of a response in bytes.
const MAX_EXCERPT: i64 = 16 << 10;
