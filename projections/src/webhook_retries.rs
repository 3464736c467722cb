//! `webhook_retries`: every attempt at a delivery. Written with `webhook_logs`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use hookledger_aggregates::delivery::{DeliveryEvent, Outcome};
use hookledger_aggregates::{OrganizationId, RecordedEvent, WebhookId};
use sqlx::{FromRow, PgConnection, PgExecutor};
use uuid::Uuid;

/// A row of `webhook_retries`.
#[derive(Clone, Debug, FromRow)]
pub struct WebhookAttempt {
    /// The webhook.
    pub webhook_id: Uuid,
    /// The attempted delivery of it.
    pub delivery_id: Uuid,
    /// Where it goes.
    pub destination_id: Uuid,
    /// 1 is the first attempt; higher ones are retries.
    pub attempt_number: i32,
    /// When it began.
    pub attempted_at: DateTime<Utc>,
    /// When it ended; `None` while it runs.
    pub ended_at: Option<DateTime<Utc>>,
    /// Whether the destination answered 200 to 299; `None` while it runs.
    pub succeeded: Option<bool>,
    /// The HTTP status of the destination's answer; `None` if there was no answer.
    pub status_code: Option<i32>,
    /// Milliseconds from start to end; `None` while it runs.
    pub duration_ms: Option<i64>,
    /// The error, in a sentence; `None` after a success.
    pub error_details: Option<String>,
}

/// The attempts at webhooks of an organization, in the order in which they began.
pub async fn of_webhooks(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    webhooks: &[WebhookId],
) -> Result<Vec<WebhookAttempt>, sqlx::Error> {
    let ids: Vec<Uuid> = webhooks.iter().map(|id| id.uuid()).collect();
    sqlx::query_as(
        "select r.webhook_id, r.delivery_id, d.destination_id, r.attempt_number, r.attempted_at, r.ended_at, r.succeeded,
                r.status_code, r.duration_ms, r.error_details
         from webhook_retries r join deliveries d using (organization_id, delivery_id)
         where r.organization_id = $1 and r.webhook_id = any ($2)
         order by r.webhook_id, r.attempted_at, r.delivery_id, r.attempt_number limit 10000",
    )
    .bind(organization.uuid())
    .bind(ids)
    .fetch_all(executor)
    .await
}

/// Attempts in a batch of events, folded to one row each.
#[derive(Default)]
pub(crate) struct Attempts(BTreeMap<Key, Attempt>);

/// Organization, webhook, delivery, attempt.
type Key = (Uuid, Uuid, Uuid, u32);

#[derive(Default)]
struct Attempt {
    started_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    succeeded: Option<bool>,
    outcome: Outcome,
}

impl Attempts {
    pub(crate) fn note(&mut self, recorded: &RecordedEvent, webhook: Uuid, event: &DeliveryEvent) {
        let key = |attempt: u32| (recorded.organization.uuid(), webhook, recorded.aggregate_id, attempt);
        let (attempt, succeeded, outcome) = match event {
            DeliveryEvent::AttemptStarted { attempt } => {
                self.0.entry(key(*attempt)).or_default().started_at = Some(recorded.recorded_at);
                return;
            }
            DeliveryEvent::AttemptSucceeded { attempt, outcome } => (attempt, true, outcome.clone()),
            DeliveryEvent::AttemptFailed { attempt, outcome } => (attempt, false, outcome.clone()),
            DeliveryEvent::AttemptAbandoned { attempt } => {
                let error = Some(hookledger_aggregates::Label::new(WORKER_LOST));
                (attempt, false, Outcome { error, ..Outcome::default() })
            }
            DeliveryEvent::RetryScheduled { .. }
            | DeliveryEvent::DeadLettered { .. }
            | DeliveryEvent::RetryRequested { .. }
            | DeliveryEvent::Cancelled { .. } => return,
        };
        let row = self.0.entry(key(*attempt)).or_default();
        row.ended_at = Some(recorded.recorded_at);
        row.succeeded = Some(succeeded);
        row.outcome = outcome;
    }

    /// Writes the rows. An attempt ends once, so writing it again changes nothing.
    pub(crate) async fn write(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut columns = Columns::default();
        self.0.into_iter().for_each(|(key, attempt)| columns.push(key, attempt));
        // As in `deliveries`.
        sqlx::query(
            "with n as (
                 select * from unnest($1::uuid[], $2::uuid[], $10::uuid[], $3::int[], $4::timestamptz[],
                                      $5::timestamptz[], $6::bool[], $7::int[], $8::bigint[], $9::text[])
                      as n (organization_id, webhook_id, delivery_id, attempt_number, attempted_at, ended_at,
                            succeeded, status_code, duration_ms, error_details)
             ),
             ended as (
                 update webhook_retries r
                 set ended_at = n.ended_at, succeeded = n.succeeded, status_code = n.status_code,
                     duration_ms = n.duration_ms, error_details = n.error_details
                 from n
                 where r.organization_id = n.organization_id and r.webhook_id = n.webhook_id
                   and r.delivery_id = n.delivery_id and r.attempt_number = n.attempt_number
                   and r.ended_at is null and n.ended_at is not null
             )
             insert into webhook_retries (organization_id, webhook_id, delivery_id, attempt_number, attempted_at,
                                          ended_at, succeeded, status_code, duration_ms, error_details)
             select organization_id, webhook_id, delivery_id, attempt_number, coalesce(attempted_at, ended_at),
                    ended_at, succeeded, status_code, duration_ms, error_details
             from n
             where not exists (select from webhook_retries r
                               where r.organization_id = n.organization_id and r.webhook_id = n.webhook_id
                                 and r.delivery_id = n.delivery_id and r.attempt_number = n.attempt_number)",
        )
        .bind(&columns.organization)
        .bind(&columns.webhook)
        .bind(&columns.attempt)
        .bind(&columns.started_at)
        .bind(&columns.ended_at)
        .bind(&columns.succeeded)
        .bind(&columns.status_code)
        .bind(&columns.duration_ms)
        .bind(&columns.error)
        .bind(&columns.delivery)
        .execute(connection)
        .await
        .map(drop)
    }
}

/// Error of an attempt whose worker is gone.
pub const WORKER_LOST: &str = "worker lost";

#[derive(Default)]
struct Columns {
    organization: Vec<Uuid>,
    webhook: Vec<Uuid>,
    delivery: Vec<Uuid>,
    attempt: Vec<i32>,
    started_at: Vec<Option<DateTime<Utc>>>,
    ended_at: Vec<Option<DateTime<Utc>>>,
    succeeded: Vec<Option<bool>>,
    status_code: Vec<Option<i32>>,
    duration_ms: Vec<Option<i64>>,
    error: Vec<Option<String>>,
}

impl Columns {
    fn push(&mut self, (organization, webhook, delivery, number): Key, attempt: Attempt) {
        let ended = attempt.ended_at.is_some();
        self.organization.push(organization);
        self.webhook.push(webhook);
        self.delivery.push(delivery);
        self.attempt.push(number.cast_signed());
        self.started_at.push(attempt.started_at);
        self.ended_at.push(attempt.ended_at);
        self.succeeded.push(attempt.succeeded);
        self.status_code.push(attempt.outcome.status_code.map(i32::from));
        self.duration_ms.push(ended.then(|| i64::try_from(attempt.outcome.duration_ms).unwrap_or(i64::MAX)));
        self.error.push(attempt.outcome.error.map(|error| error.as_str().to_owned()));
    }
}
