//! The queue as people see it.

use chrono::{DateTime, Utc};
use hookledger_aggregates::{DeliveryId, DestinationId, OrganizationId, WebhookId};
use sqlx::{FromRow, PgExecutor};
use uuid::Uuid;

use super::BusyReason;
use crate::directory::Hold;

/// The reason why a delivery waits, other than its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Held(Hold),
    Busy(BusyReason),
}

/// The reasons why queued deliveries of webhooks, without a running attempt, wait.
pub async fn waits_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    webhooks: &[WebhookId],
) -> Result<Vec<(WebhookId, DeliveryId, Wait)>, sqlx::Error> {
    let ids: Vec<Uuid> = webhooks.iter().map(|id| id.uuid()).collect();
    let rows: Vec<(Uuid, Uuid, Option<String>, Option<String>)> = sqlx::query_as(
        "select d.webhook_id, d.delivery_id, d.held, b.reason
         from deliveries x join delivery_due d using (organization_id, delivery_id)
         left join lateral (
             select reason from destination_busy b
             where b.organization_id = d.organization_id and b.destination_id = d.destination_id and d.due_at <= now()
               and b.busy_at > now() - interval '5 seconds'
             order by busy_at desc limit 1) b on d.held is null
         where x.organization_id = $1 and x.webhook_id = any ($2) and d.holder is null",
    )
    .bind(organization.uuid())
    .bind(ids)
    .fetch_all(executor)
    .await?;
    let wait = |held: Option<String>, busy: Option<String>| match (held, busy) {
        (Some(held), _) => {
            let known = Hold::ALL.into_iter().find(|hold| hold.as_str() == held);
            known.map(Wait::Held).map(Some).ok_or_else(|| unknown("delivery_due.held", &held))
        }
        (None, Some(busy)) => {
            let known = [BusyReason::Concurrency, BusyReason::CircuitOpen].into_iter().find(|b| b.as_str() == busy);
            known.map(Wait::Busy).map(Some).ok_or_else(|| unknown("destination_busy.reason", &busy))
        }
        (None, None) => Ok(None),
    };
    let mut waits = Vec::with_capacity(rows.len());
    for (webhook, delivery, held, busy) in rows {
        let (webhook, delivery) = (WebhookId::new(webhook), DeliveryId::new(delivery));
        waits.extend(wait(held, busy)?.map(|wait| (webhook, delivery, wait)));
    }
    Ok(waits)
}

fn unknown(column: &str, value: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{column} holds {value:?}").into())
}

/// A circuit, as its node last reported it.
#[derive(Clone, Debug, FromRow)]
pub struct CircuitNote {
    pub destination_id: Uuid,
    pub node: Uuid,
    state: String,
    pub failures: i32,
    pub opened_at: Option<DateTime<Utc>>,
    pub probe_at: Option<DateTime<Utc>>,
    pub changed_at: DateTime<Utc>,
}

/// Name of a circuit's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    Closed,
    Open,
    HalfOpen,
}

impl CircuitNote {
    pub fn state(&self) -> Result<CircuitState, sqlx::Error> {
        match self.state.as_str() {
            "closed" => Ok(CircuitState::Closed),
            "open" => Ok(CircuitState::Open),
            "half_open" => Ok(CircuitState::HalfOpen),
            other => Err(sqlx::Error::Decode(format!("destination_circuits.state holds {other:?}").into())),
        }
    }
}

/// Circuits of destinations that have opened at least once.
pub async fn circuits_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    destinations: &[DestinationId],
) -> Result<Vec<CircuitNote>, sqlx::Error> {
    sqlx::query_as(
        "select destination_id, node, state, failures, opened_at, probe_at, changed_at from destination_circuits
         where organization_id = $1 and destination_id = any ($2) order by destination_id, node limit 1000",
    )
    .bind(organization.uuid())
    .bind(uuids(destinations))
    .fetch_all(executor)
    .await
}

/// How many deliveries to destinations wait for an attempt, or have a running one.
pub async fn waiting_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    destinations: &[DestinationId],
) -> Result<Vec<(DestinationId, i64)>, sqlx::Error> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "select destination_id, count(*) from delivery_due
         where organization_id = $1 and destination_id = any ($2) group by destination_id",
    )
    .bind(organization.uuid())
    .bind(uuids(destinations))
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|(destination, count)| (DestinationId::new(destination), count)).collect())
}

/// A destination's answer to an attempt at a delivery of a webhook.
pub type Answered = (WebhookId, DeliveryId, i32, Vec<u8>);

/// Answers of destinations to attempts at webhooks.
pub async fn responses_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    webhooks: &[WebhookId],
) -> Result<Vec<Answered>, sqlx::Error> {
    let ids: Vec<Uuid> = webhooks.iter().map(|id| id.uuid()).collect();
    let rows: Vec<(Uuid, Uuid, i32, Vec<u8>)> = sqlx::query_as(
        "select webhook_id, delivery_id, attempt_number, excerpt from attempt_responses
         where organization_id = $1 and webhook_id = any ($2)
         order by webhook_id, delivery_id, attempt_number limit 1000",
    )
    .bind(organization.uuid())
    .bind(ids)
    .fetch_all(executor)
    .await?;
    let answered =
        |(webhook, delivery, attempt, excerpt)| (WebhookId::new(webhook), DeliveryId::new(delivery), attempt, excerpt);
    Ok(rows.into_iter().map(answered).collect())
}

fn uuids(destinations: &[DestinationId]) -> Vec<Uuid> {
    destinations.iter().map(|id| id.uuid()).collect()
}
