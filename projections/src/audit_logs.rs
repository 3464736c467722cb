//! `audit_logs`: who did what to which resource, with the values before and after.

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use hookledger_aggregates::access::AccessEvent;
use hookledger_aggregates::delivery::DeliveryEvent;
use hookledger_aggregates::destination::{DestinationEvent, DestinationSettings};
use hookledger_aggregates::event::Stored as _;
use hookledger_aggregates::organization::OrganizationEvent;
use hookledger_aggregates::provider::ProviderEvent;
use hookledger_aggregates::retention::RetentionEvent;
use hookledger_aggregates::route::{RouteEvent, RouteSettings};
use hookledger_aggregates::usage::UsageEvent;
use hookledger_aggregates::user::UserEvent;
use hookledger_aggregates::{Actor, Event, Label, OrganizationId, RecordedEvent};
use serde_json::{Value, json};
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgExecutor};
use uuid::Uuid;

use crate::{Interest, Page, PageRequest, Projection, ProjectionError};

/// A row of `audit_logs`.
#[derive(Clone, Debug, FromRow)]
pub struct AuditEntry {
    /// The organization that it belongs to; the nil UUID for the platform.
    pub organization_id: Uuid,
    /// Partition of the event in the log, 0 to 15.
    pub partition: i32,
    /// Position of the event in its partition.
    pub position: i64,
    /// The user who did it; `None` for the system and for senders.
    pub user_id: Option<Uuid>,
    /// The user's address, if the user belongs to the organization and is not erased.
    pub user_email: Option<String>,
    /// The session in which it was done.
    pub session_id: Option<Uuid>,
    /// The address of the client.
    pub client: Option<String>,
    /// The user agent of the client.
    pub agent: Option<String>,
    /// The kind of action, such as `created` or `signed_in`.
    pub action: String,
    /// `organization`, `user`, `provider`, `webhook` or `audit_log`.
    pub resource_type: String,
    /// The resource that it was done to.
    pub resource_id: Uuid,
    /// `{"old": {…}, "new": {…}}` with the changed fields only; never a secret.
    pub changes: Json<Value>,
    /// When the event was recorded.
    pub at: DateTime<Utc>,
}

/// A selection of entries; a `None` does not restrict it.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// By this user.
    pub user: Option<Uuid>,
    /// With this action, word for word.
    pub action: Option<String>,
    /// On resources of this type.
    pub resource_type: Option<String>,
    /// On the resource with this ID.
    pub resource: Option<Uuid>,
    /// At this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Before this time.
    pub to: Option<DateTime<Utc>>,
}

/// Key of an entry in a list, newest first. The partition distinguishes entries of several organizations at
/// the same moment.
pub type AuditKey = (DateTime<Utc>, i32, i64);

/// The audit trail of an organization, newest first.
pub async fn list(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    filter: &AuditFilter,
    page: PageRequest<AuditKey>,
) -> Result<Page<AuditEntry>, sqlx::Error> {
    list_where(executor, Some(organization), filter, page).await
}

/// Every organization's audit trail: for super admins only.
pub async fn list_everywhere(
    executor: impl PgExecutor<'_>,
    filter: &AuditFilter,
    page: PageRequest<AuditKey>,
) -> Result<Page<AuditEntry>, sqlx::Error> {
    list_where(executor, None, filter, page).await
}

async fn list_where(
    executor: impl PgExecutor<'_>,
    organization: Option<OrganizationId>,
    filter: &AuditFilter,
    page: PageRequest<AuditKey>,
) -> Result<Page<AuditEntry>, sqlx::Error> {
    let (compare, order) = if page.backward { (">", "asc") } else { ("<", "desc") };
    // Conditions are added only when requested, so that the planner sees which index applies.
    let conditions = [
        (organization.is_some(), "a.organization_id = $1"),
        (filter.user.is_some(), "a.user_id = $2"),
        (filter.action.is_some(), "a.action = $3"),
        (filter.resource_type.is_some(), "a.resource_type = $4"),
        (filter.resource.is_some(), "a.resource_id = $5"),
        (filter.from.is_some(), "a.at >= $6"),
        (filter.to.is_some(), "a.at < $7"),
    ];
    let asked: Vec<_> = conditions.into_iter().filter(|(asked, _)| *asked).map(|(_, sql)| sql).collect();
    let asked = if asked.is_empty() { "true".to_owned() } else { asked.join(" and ") };
    let sql = format!(
        "select a.organization_id, a.partition, a.position, a.user_id, e.email as user_email, a.session_id, a.client,
                a.agent, a.action, a.resource_type, a.resource_id, a.changes, a.at
         from audit_logs a
         left join user_emails e on e.organization_id = a.organization_id and e.user_id = a.user_id
         where {asked} and ($8::timestamptz is null or (a.at, a.partition, a.position) {compare} ($8, $9, $10))
         order by a.at {order}, a.partition {order}, a.position {order} limit $11"
    );
    let rows = sqlx::query_as(&sql)
        .bind(organization.map(OrganizationId::uuid))
        .bind(filter.user)
        .bind(filter.action.as_deref())
        .bind(filter.resource_type.as_deref())
        .bind(filter.resource)
        .bind(filter.from)
        .bind(filter.to)
        .bind(page.from.map(|key| key.0))
        .bind(page.from.map(|key| key.1))
        .bind(page.from.map(|key| key.2))
        .bind(page.limit + 1)
        .fetch_all(executor)
        .await?;
    Ok(Page::from_overfull(rows, &page))
}

/// Maintains `audit_logs`.
#[derive(Debug)]
pub struct AuditLogs;

impl Projection for AuditLogs {
    fn name(&self) -> &'static str {
        "audit_logs"
    }

    fn interest(&self) -> Interest {
        Interest::Administrative
    }

    fn shows(&self) -> &'static [&'static str] {
        &[
            OrganizationEvent::AGGREGATE,
            UserEvent::AGGREGATE,
            ProviderEvent::AGGREGATE,
            DestinationEvent::AGGREGATE,
            RouteEvent::AGGREGATE,
            DeliveryEvent::AGGREGATE,
            UsageEvent::AGGREGATE,
            AccessEvent::AGGREGATE,
            RetentionEvent::AGGREGATE,
        ]
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

/// The meaning of an event for an auditor.
struct Entry {
    resource_type: &'static str,
    action: &'static str,
    /// The fields that it set, or the facts of an event without a change.
    new: Value,
}

/// Events that change no field of their resource.
const FACTS: [&str; 14] = [
    "cancelled",
    "duplicate_delivered",
    "signed_in",
    "session_ended",
    "sessions_ended",
    "retry_requested",
    "exported",
    "verified",
    "action_refused",
    "sign_in_refused",
    "refusals_suppressed",
    "erased",
    "body_erased",
    "bodies_removed",
];

impl Entry {
    /// Whether `new` has fields with earlier values.
    fn is_change(&self) -> bool {
        !FACTS.contains(&self.action)
    }
}

fn entry(event: &Event) -> Option<Entry> {
    let (resource_type, (action, new)) = match event {
        Event::Organization(event) => ("organization", organization(event)),
        Event::User(event) => ("user", user(event)),
        Event::Provider(event) => ("provider", provider(event)?),
        Event::Destination(event) => ("destination", destination(event)),
        Event::Route(event) => ("route", route(event)),
        Event::Delivery(event) => ("delivery", delivery(event)?),
        Event::Usage(event) => ("usage", usage(event)),
        Event::Access(event) => access(event),
        Event::Retention(event) => retention(event),
        // The user's own events contain this.
        Event::EmailClaim(_) | Event::Team(_) => return None,
        // Webhooks come from senders.
        Event::Webhook(_) => return None,
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
        UserEvent::Invited { role, email_claim_id: _ } => ("invited", json!({"role": role, "isActive": true})),
        UserEvent::Joined {} => ("joined", json!({"joined": true})),
        UserEvent::SignedIn { session_id } => ("signed_in", json!({"sessionId": session_id})),
        UserEvent::RoleChanged { role } => ("role_changed", json!({"role": role})),
        UserEvent::Activated {} => ("activated", json!({"isActive": true})),
        UserEvent::Deactivated {} => ("deactivated", json!({"isActive": false})),
        UserEvent::SessionEnded { session_id } => ("session_ended", json!({"sessionId": session_id})),
        UserEvent::SessionsEnded {} => ("sessions_ended", json!({})),
        UserEvent::Erased {} => ("erased", json!({})),
    }
}

fn retention(event: &RetentionEvent) -> (&'static str, (&'static str, Value)) {
    match event {
        RetentionEvent::BodiesRemoved { after_position, to_position, count, received_before } => (
            "organization",
            (
                "bodies_removed",
                json!({"count": count, "afterPosition": after_position, "toPosition": to_position,
                       "receivedBefore": received_before}),
            ),
        ),
        RetentionEvent::BodyErased { position, reason } => {
            ("webhook", ("body_erased", json!({"position": position, "reason": reason})))
        }
    }
}

fn access(event: &AccessEvent) -> (&'static str, (&'static str, Value)) {
    match event {
        AccessEvent::ActionRefused { action } => ("user", ("action_refused", json!({"action": action}))),
        AccessEvent::SignInRefused { reason } => ("user", ("sign_in_refused", json!({"reason": reason}))),
        AccessEvent::RefusalsSuppressed { count, since } => {
            ("user", ("refusals_suppressed", json!({"count": count, "since": since})))
        }
        AccessEvent::AuditExported { format, filter } => {
            ("audit_log", ("exported", json!({"format": format, "filter": filter})))
        }
        AccessEvent::DuplicateDelivered { body_sha256, delivered_as, reason } => {
            let new = json!({"bodySha256": body_sha256, "deliveredAs": delivered_as, "reason": reason});
            ("webhook", ("duplicate_delivered", new))
        }
        AccessEvent::LedgerVerified { ledgers, events, finding } => {
            ("audit_log", ("verified", json!({"ledgers": ledgers, "events": events, "finding": finding})))
        }
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
        ProviderEvent::SecretAdded { secret_version, label, secret_id: _ } => {
            ("secret_added", json!({"secretVersion": secret_version, "label": label}))
        }
        ProviderEvent::SecretLabelled { secret_version, label } => {
            ("secret_labelled", json!({"secretVersion": secret_version, "label": label}))
        }
        ProviderEvent::SecretRevoked { secret_version, expire_at } => {
            ("secret_revoked", json!({"secretVersion": secret_version, "secretExpiresAt": expire_at}))
        }
        ProviderEvent::Activated {} => ("activated", json!({"isActive": true})),
        ProviderEvent::Deactivated {} => ("deactivated", json!({"isActive": false})),
        ProviderEvent::Deleted {} => ("deleted", json!({"isActive": false})),
        ProviderEvent::RejectionsSuppressed { .. } => return None,
    })
}

fn usage(event: &UsageEvent) -> (&'static str, Value) {
    match event {
        UsageEvent::Warned { month, percent, limit, accepted } => {
            ("limit_warned", json!({"month": month, "percent": percent, "webhookLimit": limit, "accepted": accepted}))
        }
    }
}

fn destination(event: &DestinationEvent) -> (&'static str, Value) {
    match event {
        DestinationEvent::Set(DestinationSettings {
            name,
            url,
            timeout_seconds,
            concurrency,
            header_names,
            headers: _,
            original_signature,
        }) => (
            "destination_set",
            json!({"name": name, "url": url, "timeoutSeconds": timeout_seconds, "concurrency": concurrency,
                   "headerNames": header_names, "originalSignature": original_signature, "isDeleted": false}),
        ),
        DestinationEvent::SecretSet { secret, previous_expire_at } => (
            "outgoing_secret_set",
            json!({"secretVersion": secret.secret_version, "previousSecretsExpireAt": previous_expire_at}),
        ),
        DestinationEvent::Deleted { secrets_end: _ } => ("deleted", json!({"isDeleted": true})),
    }
}

fn route(event: &RouteEvent) -> (&'static str, Value) {
    match event {
        RouteEvent::Set { settings, version } => {
            let RouteSettings { name, provider_id, destination_id } = settings;
            (
                "route_set",
                json!({"name": name, "providerId": provider_id, "destinationId": destination_id, "version": version,
                       "isDeleted": false}),
            )
        }
        RouteEvent::Enabled { version } => ("enabled", json!({"isEnabled": true, "version": version})),
        RouteEvent::Disabled { version } => ("disabled", json!({"isEnabled": false, "version": version})),
        RouteEvent::Deleted { version } => ("deleted", json!({"isDeleted": true, "version": version})),
    }
}

fn delivery(event: &DeliveryEvent) -> Option<(&'static str, Value)> {
    match event {
        DeliveryEvent::RetryRequested { attempt, webhook_id, route_id, destination_id, reason } => Some((
            "retry_requested",
            json!({"attempt": attempt, "webhookId": webhook_id, "routeId": route_id, "destinationId": destination_id,
                   "reason": reason}),
        )),
        DeliveryEvent::Cancelled { reason } => Some(("cancelled", json!({"reason": reason}))),
        DeliveryEvent::AttemptStarted { .. }
        | DeliveryEvent::AttemptSucceeded { .. }
        | DeliveryEvent::AttemptFailed { .. }
        | DeliveryEvent::AttemptAbandoned { .. }
        | DeliveryEvent::RetryScheduled { .. }
        | DeliveryEvent::DeadLettered { .. } => None,
    }
}

/// The old values come from the resource's previous entries.
async fn insert(connection: &mut PgConnection, recorded: &RecordedEvent, entry: &Entry) -> Result<(), sqlx::Error> {
    let user = match recorded.metadata.actor {
        Actor::User(user) => Some(user.uuid()),
        Actor::System | Actor::Sender => None,
    };
    sqlx::query(
        "with entry as (
             insert into audit_logs (organization_id, partition, position, user_id, session_id, client, agent,
                                     action, resource_type, resource_id, changes, at)
             values ($1, $2, $3, $4, $5, $6, $13, $7, $8, $9, jsonb_build_object(
                 'old', coalesce((
                     select jsonb_object_agg(f.key, r.state -> f.key)
                     from audit_resources r, jsonb_object_keys($10) as f (key)
                     where $12 and r.organization_id = $1 and r.resource_type = $8 and r.resource_id = $9
                       and r.state ? f.key), '{}'),
                 'new', $10), $11)
             on conflict do nothing
             returning 1
         )
         insert into audit_resources as r (organization_id, resource_type, resource_id, state)
         select $1, $8, $9, $10 from entry where $12
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
    .bind(entry.is_change())
    .bind(recorded.metadata.agent.as_ref().map(Label::as_str))
    .execute(connection)
    .await
    .map(drop)
}
