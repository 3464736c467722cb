//! `organizations`: customers, their plans and limits.

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use hookledger_aggregates::event::Stored as _;
use hookledger_aggregates::organization::OrganizationEvent;
use hookledger_aggregates::{Event, OrganizationId, RecordedEvent};
use sqlx::{FromRow, PgConnection, PgExecutor, QueryBuilder};
use uuid::Uuid;

use crate::order::{self, Column, Field, Kind};
use crate::{Interest, Order, Page, PageRequest, Place, Projection, ProjectionError, Sorted};

/// A row of `organizations`, with computed values.
#[derive(Clone, Debug, FromRow)]
pub struct Organization {
    /// Derived from the slug.
    pub id: Uuid,
    /// The name that people see.
    pub name: String,
    /// The name in URLs, which never changes.
    pub slug: String,
    /// `free`, `starter` or `premium`.
    pub plan: String,
    /// Accepted webhooks per calendar month, UTC; `None` is unlimited.
    pub webhook_limit: Option<i32>,
    /// Whether it receives webhooks and its people can sign in.
    pub is_active: bool,
    /// Time of its first event.
    pub created_at: DateTime<Utc>,
    /// Time of its last event.
    pub updated_at: DateTime<Utc>,
    /// All accepted webhooks, without duplicates.
    pub webhook_count: i64,
}

impl Organization {
    /// The ID with its type.
    #[must_use]
    pub fn organization_id(&self) -> OrganizationId {
        OrganizationId::new(self.id)
    }
}

/// A selection of organizations.
#[derive(Clone, Debug, Default)]
pub struct OrganizationFilter {
    /// Part of the name or slug.
    pub search: Option<String>,
    /// Only active or only inactive ones; `None` for both.
    pub is_active: Option<bool>,
}

/// Fields that organizations can be sorted by. Not the number of their webhooks, which is a sum over months
/// without an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrganizationField {
    /// Time of the first event.
    #[default]
    CreatedAt,
    /// Without regard to case.
    Name,
}

impl Field for OrganizationField {
    fn column(self) -> Column {
        match self {
            Self::CreatedAt => Column { tag: b'c', kind: Kind::Time, value: "o.created_at", present: None },
            Self::Name => Column { tag: b'n', kind: Kind::Text, value: "o.name_key", present: None },
        }
    }
}

const COLUMNS: &str = "o.id, o.name, o.slug, o.plan, o.webhook_limit, o.is_active, o.created_at, o.updated_at, \
     (select coalesce(sum(c.accepted), 0)::bigint from webhook_counts c where c.organization_id = o.id) as webhook_count";

/// The organization with that ID.
pub async fn find(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
) -> Result<Option<Organization>, sqlx::Error> {
    sqlx::query_as(&format!("select {COLUMNS} from organizations o where o.id = $1"))
        .bind(organization.uuid())
        .fetch_optional(executor)
        .await
}

/// All organizations: for super admins only.
pub async fn list(
    connection: &mut PgConnection,
    filter: &OrganizationFilter,
    order: Order<OrganizationField>,
    page: &PageRequest<Place>,
) -> Result<Page<Sorted<Organization>>, sqlx::Error> {
    order::read(connection, order, page, "o.id", |value, _| {
        let mut query =
            QueryBuilder::new(format!("select {COLUMNS}, {value} as sorted_by from organizations o where true"));
        if let Some(search) = &filter.search {
            query.push(" and (position(lower(").push_bind(search).push(") in o.name_key) > 0");
            query.push(" or position(lower(").push_bind(search).push(") in o.slug) > 0)");
        }
        if let Some(is_active) = filter.is_active {
            query.push(" and o.is_active = ").push_bind(is_active);
        }
        query
    })
    .await
}

/// A page of all organizations' IDs, in order, after one.
pub async fn ids_after(
    executor: impl PgExecutor<'_>,
    after: Uuid,
    limit: i64,
) -> Result<Vec<OrganizationId>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar("select id from organizations where id > $1 order by id limit $2")
        .bind(after)
        .bind(limit)
        .fetch_all(executor)
        .await?;
    Ok(ids.into_iter().map(OrganizationId::new).collect())
}

/// Maintains `organizations`.
#[derive(Debug)]
pub struct Organizations;

impl Projection for Organizations {
    fn name(&self) -> &'static str {
        "organizations"
    }

    fn interest(&self) -> Interest {
        Interest::Administrative
    }

    fn shows(&self) -> &'static [&'static str] {
        &[OrganizationEvent::AGGREGATE]
    }

    fn tables(&self) -> &'static [&'static str] {
        &["organizations"]
    }

    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        events: &'a [RecordedEvent],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            for recorded in events {
                match &recorded.event {
                    Event::Organization(event) => apply_one(connection, recorded, event).await?,
                    Event::User(_)
                    | Event::EmailClaim(_)
                    | Event::Team(_)
                    | Event::Retention(_)
                    | Event::Access(_)
                    | Event::Provider(_)
                    | Event::Webhook(_)
                    | Event::Destination(_)
                    | Event::Route(_)
                    | Event::Delivery(_)
                    | Event::Usage(_) => {}
                }
            }
            Ok(())
        })
    }
}

/// Settings change rarely, so one statement per event is enough.
async fn apply_one(
    connection: &mut PgConnection,
    recorded: &RecordedEvent,
    event: &OrganizationEvent,
) -> Result<(), sqlx::Error> {
    if let OrganizationEvent::Created { name, slug, plan, webhook_limit } = event {
        sqlx::query(
            "insert into organizations (id, name, slug, plan, webhook_limit, is_active,
                                        created_at, updated_at, applied_position)
             values ($1, $2, $3, $4, $5, true, $6, $6, $7) on conflict (id) do nothing",
        )
        .bind(recorded.organization.uuid())
        .bind(name)
        .bind(slug)
        .bind(plan.as_str())
        .bind(webhook_limit.map(stored_limit))
        .bind(recorded.recorded_at)
        .bind(recorded.position)
        .execute(connection)
        .await?;
        return Ok(());
    }
    let (name, plan, active) = match event {
        OrganizationEvent::Created { .. } => (None, None, None),
        OrganizationEvent::Renamed { name } => (Some(name.as_str()), None, None),
        OrganizationEvent::PlanChanged { plan, webhook_limit } => (None, Some((plan, webhook_limit)), None),
        OrganizationEvent::Activated {} => (None, None, Some(true)),
        OrganizationEvent::Deactivated {} => (None, None, Some(false)),
    };
    sqlx::query(
        "update organizations
         set name = coalesce($3, name), plan = coalesce($4, plan),
             webhook_limit = case when $4 is null then webhook_limit else $5 end,
             is_active = coalesce($6, is_active),
             deactivated_at = case when not $6 then $7 else deactivated_at end,
             updated_at = $7, applied_position = $2
         where id = $1 and applied_position < $2",
    )
    .bind(recorded.organization.uuid())
    .bind(recorded.position)
    .bind(name)
    .bind(plan.map(|(plan, _)| plan.as_str()))
    .bind(plan.and_then(|(_, limit)| limit.map(stored_limit)))
    .bind(active)
    .bind(recorded.recorded_at)
    .execute(connection)
    .await
    .map(drop)
}

/// GraphQL's integers end at 2³¹−1, and so does the column.
fn stored_limit(limit: u32) -> i32 {
    i32::try_from(limit).unwrap_or(i32::MAX)
}
