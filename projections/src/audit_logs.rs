//! `audit_logs`: who did what to what, with the values before and after.

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use hookledger_aggregates::organization::OrganizationEvent;
use hookledger_aggregates::provider::ProviderEvent;
use hookledger_aggregates::user::UserEvent;
use hookledger_aggregates::webhook::WebhookEvent;
use hookledger_aggregates::{Actor, Event, OrganizationId, RecordedEvent};
use serde_json::{Value, json};
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgExecutor};
use uuid::Uuid;

use crate::{Interest, Page, PageRequest, Projection, ProjectionError};

/// A row of `audit_logs`.
#[derive(Clone, Debug, FromRow)]
pub struct AuditEntry {
    pub organization_id: Uuid,
    pub partition: i32,
    pub position: i64,
    pub user_id: Option<Uuid>,
    pub session_id: Option<Uuid>,
    pub client: Option<String>,
    pub action: String,
    pub resource_type: String,
    pub resource_id: Uuid,
    pub changes: Json<Value>,
    pub at: DateTime<Utc>,
}

/// Place of an entry in an organization's list, newest first.
pub type AuditKey = (DateTime<Utc>, i64);

/// The audit trail of an organization, newest first.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    page: PageRequest<AuditKey>,
) -> Result<Page<AuditEntry>, sqlx::Error> {
    let (compare, order) = if page.backward { (">", "asc") } else { ("<", "desc") };
    let sql = format!(
        "select organization_id, partition, position, user_id, session_id, client, action, resource_type,
                resource_id, changes, at
         from audit_logs
         where organization_id = $1 and ($2::timestamptz is null or (at, position) {compare} ($2, $3))
         order by at {order}, position {order} limit $4"
    );
    let rows = sqlx::query_as(&sql)
        .bind(organization.uuid())
        .bind(page.from.map(|key| key.0))
        .bind(page.from.map(|key| key.1))
        .bind(page.limit + 1)
        .fetch_all(executor)
        .await?;
    Ok(Page::from_overfull(rows, &page))
}

/// Keeps `audit_logs`.
#[derive(Debug)]
pub struct AuditLogs;

impl Projection for AuditLogs {
    fn name(&self) -> &'static str {
        "audit_logs"
    }

    fn interest(&self) -> Interest {
        Interest::Administrative
    }

    fn tables(&self) -> &'static [&'static str] {
        &["audit_logs", "audit_resources"]
    }

    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        events: &'a [RecordedEvent],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            for recorded in events {
                if let Some(entry) = entry(&recorded.event) {
                    insert(connection, recorded, &entry).await?;
                }
            }
            Ok(())
        })
    }
}

/// What an event means to an auditor.
struct Entry {
    resource_type: &'static str,
    action: &'static str,
    /// The fields that it set.
    new: Value,
}

fn entry(event: &Event) -> Option<Entry> {
    let (resource_type, (action, new)) = match event {
        Event::Organization(event) => ("organization", organization(event)),
        Event::User(event) => ("user", user(event)),
        Event::Provider(event) => ("provider", provider(event)?),
        Event::Webhook(event) => ("webhook", webhook(event)?),
        // The user's own first event tells it.
        Event::EmailClaim(_) => return None,
    };
    Some(Entry { resource_type, action, new })
}

fn organization(event: &OrganizationEvent) -> (&'static str, Value) {
    match event {
        OrganizationEvent::Created { name, slug, plan, webhook_limit } => (
            "created",
            json!({"name": name, "slug": slug, "plan": plan, "webhookLimit": webhook_limit, "isActive": true}),
        ),
        OrganizationEvent::Renamed { name } => ("updated", json!({"name": name})),
        OrganizationEvent::PlanChanged { plan, webhook_limit } => {
            ("updated", json!({"plan": plan, "webhookLimit": webhook_limit}))
        }
        OrganizationEvent::Activated {} => ("activated", json!({"isActive": true})),
        OrganizationEvent::Deactivated {} => ("deactivated", json!({"isActive": false})),
    }
}

fn user(event: &UserEvent) -> (&'static str, Value) {
    match event {
        UserEvent::Registered { role, email_claim_id: _ } => ("created", json!({"role": role, "isActive": true})),
        UserEvent::SignedIn { session_id } => ("signed_in", json!({"sessionId": session_id})),
    }
}

fn provider(event: &ProviderEvent) -> Option<(&'static str, Value)> {
    Some(match event {
        ProviderEvent::Connected { provider_name, secret_version, secret_id: _ } => {
            ("created", json!({"providerName": provider_name, "secretVersion": secret_version, "isActive": true}))
        }
        ProviderEvent::SecretRotated { secret_version, previous_expire_at, secret_id: _ } => {
            ("secret_rotated", json!({"secretVersion": secret_version, "previousSecretsExpireAt": previous_expire_at}))
        }
        ProviderEvent::Activated {} => ("activated", json!({"isActive": true})),
        ProviderEvent::Deactivated {} => ("deactivated", json!({"isActive": false})),
        ProviderEvent::Deleted {} => ("deleted", json!({"isActive": false})),
        ProviderEvent::RejectionsSuppressed { .. } => return None,
    })
}

fn webhook(event: &WebhookEvent) -> Option<(&'static str, Value)> {
    match event {
        WebhookEvent::RetryRequested { attempt, reason } => {
            Some(("retry_requested", json!({"attempt": attempt, "reason": reason})))
        }
        WebhookEvent::Received(_)
        | WebhookEvent::SignatureVerified(_)
        | WebhookEvent::Rejected { .. }
        | WebhookEvent::DuplicateReceived { .. }
        | WebhookEvent::AttemptStarted { .. }
        | WebhookEvent::AttemptSucceeded { .. }
        | WebhookEvent::AttemptFailed { .. }
        | WebhookEvent::AttemptAbandoned { .. }
        | WebhookEvent::RetryScheduled { .. }
        | WebhookEvent::DeadLettered { .. } => None,
    }
}

/// The old values are those that the resource's last entries left behind.
async fn insert(connection: &mut PgConnection, recorded: &RecordedEvent, entry: &Entry) -> Result<(), sqlx::Error> {
    let user = match recorded.metadata.actor {
        Actor::User(user) => Some(user.uuid()),
        Actor::System | Actor::Sender => None,
    };
    sqlx::query(
        "with entry as (
             insert into audit_logs (organization_id, partition, position, user_id, session_id, client, action,
                                     resource_type, resource_id, changes, at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, jsonb_build_object(
                 'old', coalesce((
                     select jsonb_object_agg(f.key, r.state -> f.key)
                     from audit_resources r, jsonb_object_keys($10) as f (key)
                     where r.organization_id = $1 and r.resource_type = $8 and r.resource_id = $9
                       and r.state ? f.key), '{}'),
                 'new', $10), $11)
             on conflict do nothing
             returning 1
         )
         insert into audit_resources as r (organization_id, resource_type, resource_id, state)
         select $1, $8, $9, $10 from entry
         on conflict (organization_id, resource_type, resource_id) do update set state = r.state || excluded.state",
    )
    .bind(recorded.organization.uuid())
    .bind(recorded.partition.number())
    .bind(recorded.position)
    .bind(user)
    .bind(recorded.metadata.session.map(hookledger_aggregates::SessionId::uuid))
    .bind(recorded.metadata.client.as_deref())
    .bind(entry.action)
    .bind(entry.resource_type)
    .bind(recorded.aggregate_id)
    .bind(Json(&entry.new))
    .bind(recorded.recorded_at)
    .execute(connection)
    .await
    .map(drop)
}
