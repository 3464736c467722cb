//! Events of the log as people see them, and the state after one.

use async_graphql::{Error, Json, SimpleObject};
use chrono::{DateTime, Utc};
use hookledger_aggregates::{Actor, RecordedEvent as Recorded};
use hookledger_projections::webhook_logs;
use uuid::Uuid;

use super::status::WebhookStatus;
use crate::api::graphql::errors::internal;
use crate::api::graphql::types::position::LogPosition;

/// An event of the log.
#[derive(SimpleObject)]
pub struct RecordedEvent {
    position: LogPosition,
    aggregate_type: &'static str,
    aggregate_id: Uuid,
    sequence: i64,
    event_type: &'static str,
    payload: Json<serde_json::Value>,
    /// `system`, `sender`, or `user`.
    actor: &'static str,
    /// Visible to admins and to the user.
    user_id: Option<Uuid>,
    /// The client's address. Those of users are visible to admins and to the users themselves.
    client: Option<String>,
    recorded_at: DateTime<Utc>,
}

impl RecordedEvent {
    pub(crate) fn place(&self) -> LogPosition {
        self.position
    }

    /// As it is shown to a member: only what one did oneself has a user and a client.
    pub(super) fn without_others(self, member: Uuid) -> Self {
        if self.user_id.is_none_or(|user| user == member) {
            return self;
        }
        Self { user_id: None, client: None, ..self }
    }
}

impl TryFrom<Recorded> for RecordedEvent {
    type Error = Error;
    fn try_from(recorded: Recorded) -> Result<Self, Error> {
        let (aggregate_type, event_type, payload) = recorded.event.stored().map_err(internal)?;
        let (actor, user_id) = match recorded.metadata.actor {
            Actor::System => ("system", None),
            Actor::Sender => ("sender", None),
            Actor::User(user) => ("user", Some(user.uuid())),
        };
        Ok(Self {
            position: LogPosition { partition: recorded.partition.number(), position: recorded.position },
            aggregate_type,
            aggregate_id: recorded.aggregate_id,
            sequence: recorded.sequence,
            event_type,
            payload: Json(serde_json::from_str(&payload).map_err(internal)?),
            actor,
            user_id,
            client: recorded.metadata.client,
            recorded_at: recorded.recorded_at,
        })
    }
}

/// A webhook's state after one of its events.
#[derive(SimpleObject)]
pub struct WebhookState {
    /// Number of the event among the webhook's own.
    sequence: i64,
    /// When the event was recorded.
    at: DateTime<Utc>,
    signature_valid: bool,
    status: WebhookStatus,
    retry_count: i32,
    error_message: Option<String>,
    processed_at: Option<DateTime<Utc>>,
    next_retry_at: Option<DateTime<Utc>>,
    dead_lettered_at: Option<DateTime<Utc>>,
    duplicate_count: i32,
    body_differs: bool,
}

impl From<webhook_logs::WebhookState> for WebhookState {
    fn from(state: webhook_logs::WebhookState) -> Self {
        Self {
            sequence: state.sequence,
            at: state.at,
            signature_valid: state.signature_valid,
            status: state.status.into(),
            retry_count: state.retry_count,
            error_message: state.error_message,
            processed_at: state.processed_at,
            next_retry_at: state.next_retry_at,
            dead_lettered_at: state.dead_lettered_at,
            duplicate_count: state.duplicate_count,
            body_differs: state.body_differs,
        }
    }
}
