//! Writes a folded batch in a few statements, regardless of its size.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use hookledger_aggregates::webhook::RejectionReason;
use hookledger_aggregates::{Label, OrganizationId, WebhookId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::find;
use super::fold::{Change, First, Fold, State, VerifiedLater, count, differ};
use crate::ProjectionError;

impl Fold<'_> {
    /// Writes the batch.
    pub(super) async fn write(mut self, connection: &mut PgConnection) -> Result<(), ProjectionError> {
        let delivered = self.delivery_events.iter().map(|(of, _)| (of.organization.uuid(), of.aggregate_id));
        self.deliveries.load(connection, delivered).await?;
        self.fold_deliveries();
        // In the same order as all other code that locks these rows, to avoid deadlocks.
        let mut changes: Vec<_> = self.changes.into_iter().collect();
        changes.sort_unstable_by_key(|(key, _)| *key);
        let merged: Vec<_> = changes.iter().filter(|(_, change)| change.merged).map(|(key, _)| *key).collect();
        let (made, moved): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(_, change)| change.first.is_some());
        make(connection, &made).await?;
        let mut uses = self.uses;
        for later in self.later {
            let (organization, webhook) = (OrganizationId::new(later.organization), WebhookId::new(later.webhook));
            if let Some(row) = find(&mut *connection, organization, webhook).await? {
                if !row.signature_valid {
                    note_verified(connection, &later).await?;
                }
                let secret = (later.organization, row.provider_id, later.secret_version);
                let last = uses.entry(secret).or_insert(later.at);
                *last = later.at.max(*last);
            }
        }
        update(connection, moved).await?;
        self.deliveries.write(connection).await?;
        self.attempts.write(connection).await?;
        self.tally.write(connection).await?;
        note_uses(connection, uses).await?;
        remove_merged(connection, merged).await?;
        Ok(())
    }
}

/// A webhook that was accepted unverified is genuine, and counts from now on.
async fn note_verified(connection: &mut PgConnection, later: &VerifiedLater) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with verified as (
             update webhook_logs set signature_valid = true
             where organization_id = $1 and webhook_id = $2 and not signature_valid and applied_position < $3
             returning organization_id
         )
         insert into webhook_counts as c (organization_id, month, accepted)
         select organization_id, date_trunc('month', $4 at time zone 'UTC')::date, 1 from verified
         on conflict (organization_id, month) do update set accepted = c.accepted + excluded.accepted",
    )
    .bind(later.organization)
    .bind(later.webhook)
    .bind(later.position)
    .bind(later.at)
    .execute(connection)
    .await
    .map(drop)
}

/// Removes rows of duplicates of a webhook that has a row.
async fn remove_merged(connection: &mut PgConnection, merged: Vec<(Uuid, Uuid)>) -> Result<(), sqlx::Error> {
    if merged.is_empty() {
        return Ok(());
    }
    let (organizations, webhooks): (Vec<Uuid>, Vec<Uuid>) = merged.into_iter().unzip();
    sqlx::query(
        "with merged as (
             delete from webhook_logs w using unnest($1::uuid[], $2::uuid[]) as m (organization_id, webhook_id)
             where w.organization_id = m.organization_id and w.webhook_id = m.webhook_id
             returning w.organization_id, w.received_at, w.position
         )
         delete from webhook_open o using merged m
         where (o.organization_id, o.received_at, o.position) = (m.organization_id, m.received_at, m.position)",
    )
    .bind(organizations)
    .bind(webhooks)
    .execute(connection)
    .await
    .map(drop)
}

type Changed<'a> = ((Uuid, Uuid), Change<'a>);

/// Creates rows of webhooks whose first event is in the batch, and counts the new ones.
async fn make(connection: &mut PgConnection, made: &[Changed<'_>]) -> Result<(), sqlx::Error> {
    if made.is_empty() {
        return Ok(());
    }
    let mut columns = Made::default();
    for (key, change) in made {
        columns.push(*key, change);
    }
    sqlx::query(
        "with written as (
             insert into webhook_logs as w
                 (organization_id, webhook_id, position, applied_position, provider_id, provider_event_id, event_type,
                  body_sha256, body_size, content_type, signature_received, signature_valid, status, retry_count,
                  error_message, received_at, updated_at, processed_at, next_retry_at, dead_lettered_at,
                  duplicate_count, body_differs, rejection, replay_key, is_test, deliveries, suspected_replay)
             select n.*, n.replay_key is not null and exists (
                 select from webhook_logs o
                 where o.organization_id = n.organization_id and o.provider_id = n.provider_id
                   and o.replay_key = n.replay_key and o.position < n.position)
             from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::uuid[], $6::text[],
                 $7::text[], $8::text[], $9::bigint[], $10::text[], $11::text[], $12::bool[], $13::text[], $14::int[],
                 $15::text[], $16::timestamptz[], $17::timestamptz[], $18::timestamptz[], $19::timestamptz[],
                 $20::timestamptz[], $21::int[], $22::bool[], $23::text[], $24::uuid[],
                 $25::bool[], $26::int[])
                 as n (organization_id, webhook_id, position, applied_position, provider_id, provider_event_id,
                       event_type, body_sha256, body_size, content_type, signature_received, signature_valid, status,
                       retry_count, error_message, received_at, updated_at, processed_at, next_retry_at,
                       dead_lettered_at, duplicate_count, body_differs, rejection, replay_key, is_test, deliveries)
             on conflict (organization_id, webhook_id) do update
             set applied_position = excluded.applied_position, status = excluded.status,
                 retry_count = excluded.retry_count, error_message = excluded.error_message,
                 updated_at = excluded.updated_at, processed_at = excluded.processed_at,
                 next_retry_at = excluded.next_retry_at, dead_lettered_at = excluded.dead_lettered_at,
                 duplicate_count = excluded.duplicate_count, body_differs = excluded.body_differs,
                 deliveries = excluded.deliveries
             where w.applied_position < excluded.applied_position
             returning w.organization_id, w.received_at, w.position, w.status, w.signature_valid, (xmax = 0) as is_new
         ),
         opened as (
             insert into webhook_open (organization_id, received_at, position)
             select organization_id, received_at, position from written where status in ('pending', 'processing')
             on conflict do nothing
         )
         insert into webhook_counts as c (organization_id, month, accepted)
         select organization_id, date_trunc('month', received_at at time zone 'UTC')::date, count(*)
         from written where is_new and signature_valid
         group by 1, 2 order by 1, 2
         on conflict (organization_id, month) do update set accepted = c.accepted + excluded.accepted",
    )
    .bind(&columns.organization)
    .bind(&columns.webhook)
    .bind(&columns.position)
    .bind(&columns.last_position)
    .bind(&columns.provider)
    .bind(&columns.event_id)
    .bind(&columns.event_type)
    .bind(&columns.sha256)
    .bind(&columns.size)
    .bind(&columns.content_type)
    .bind(&columns.signature)
    .bind(&columns.valid)
    .bind(&columns.state.status)
    .bind(&columns.state.retry_count)
    .bind(&columns.state.error)
    .bind(&columns.received_at)
    .bind(&columns.updated_at)
    .bind(&columns.state.processed_at)
    .bind(&columns.state.next_retry_at)
    .bind(&columns.state.dead_lettered_at)
    .bind(&columns.duplicates)
    .bind(&columns.body_differs)
    .bind(&columns.rejection)
    .bind(&columns.replay_key)
    .bind(&columns.is_test)
    .bind(&columns.deliveries)
    .execute(&mut *connection)
    .await?;
    flag_replays_within(connection, &columns).await
}

/// A statement does not see the rows that it inserts, so replays within a batch are found here.
async fn flag_replays_within(connection: &mut PgConnection, columns: &Made<'_>) -> Result<(), sqlx::Error> {
    let mut earliest: HashMap<(Uuid, Uuid, Uuid), i64> = HashMap::new();
    let keyed = || {
        let keys = columns.replay_key.iter().zip(columns.organization.iter().zip(&columns.provider));
        let keys = keys.map(|(key, (organization, provider))| key.map(|key| (*organization, *provider, key)));
        keys.zip(&columns.position).zip(&columns.webhook).filter_map(|((key, at), webhook)| Some((key?, *at, *webhook)))
    };
    for (key, at, _) in keyed() {
        earliest.entry(key).and_modify(|first| *first = at.min(*first)).or_insert(at);
    }
    let replays = keyed().filter(|(key, at, _)| earliest.get(key).is_some_and(|first| first < at));
    let (organizations, webhooks): (Vec<Uuid>, Vec<Uuid>) = replays.map(|(key, _, webhook)| (key.0, webhook)).unzip();
    if webhooks.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "update webhook_logs w set suspected_replay = true
         from unnest($1::uuid[], $2::uuid[]) as n (organization_id, webhook_id)
         where w.organization_id = n.organization_id and w.webhook_id = n.webhook_id and not w.suspected_replay",
    )
    .bind(organizations)
    .bind(webhooks)
    .execute(connection)
    .await
    .map(drop)
}

/// If only bodies are signed, a repeated body under another ID may be a recording. The first half of its
/// digest identifies the body.
fn replay_key(first: &First<'_>) -> Option<Uuid> {
    let applies = first.valid && !first.receipt.is_test && first.receipt.provider.signs_body_alone();
    let half = first.receipt.body_sha256.get(..32).filter(|_| applies)?;
    u128::from_str_radix(half, 16).ok().map(Uuid::from_u128)
}

#[derive(Default)]
struct Made<'a> {
    organization: Vec<Uuid>,
    webhook: Vec<Uuid>,
    position: Vec<i64>,
    last_position: Vec<i64>,
    provider: Vec<Uuid>,
    event_id: Vec<Option<&'a str>>,
    event_type: Vec<Option<&'a str>>,
    sha256: Vec<&'a str>,
    size: Vec<i64>,
    content_type: Vec<Option<&'a str>>,
    signature: Vec<Option<&'a str>>,
    valid: Vec<bool>,
    received_at: Vec<DateTime<Utc>>,
    updated_at: Vec<DateTime<Utc>>,
    duplicates: Vec<i32>,
    body_differs: Vec<bool>,
    rejection: Vec<Option<&'static str>>,
    replay_key: Vec<Option<Uuid>>,
    is_test: Vec<bool>,
    deliveries: Vec<Option<i32>>,
    state: States,
}

impl<'a> Made<'a> {
    fn push(&mut self, (organization, webhook): (Uuid, Uuid), change: &Change<'a>) {
        let Some(first) = &change.first else { return };
        let First { receipt, position, at, valid, rejection } = first;
        self.organization.push(organization);
        self.webhook.push(webhook);
        self.position.push(*position);
        self.last_position.push(change.last_position);
        self.provider.push(receipt.provider_id.uuid());
        self.event_id.push(receipt.provider_event_id.as_ref().map(Label::as_str));
        self.event_type.push(receipt.event_type.as_ref().map(Label::as_str));
        self.sha256.push(&receipt.body_sha256);
        self.size.push(i64::try_from(receipt.body_size).unwrap_or(i64::MAX));
        self.content_type.push(receipt.content_type.as_ref().map(Label::as_str));
        self.signature.push(receipt.signature.as_ref().map(Label::as_str));
        self.valid.push(*valid);
        self.received_at.push(*at);
        self.updated_at.push(change.last_at);
        self.duplicates.push(count(&change.duplicates));
        self.body_differs.push(differ(&change.duplicates));
        self.rejection.push(rejection.map(RejectionReason::as_str));
        self.replay_key.push(replay_key(first));
        self.is_test.push(receipt.is_test);
        self.deliveries.push(change.deliveries);
        self.state.push(change.state.as_ref());
    }
}

#[derive(Default)]
struct States {
    status: Vec<Option<&'static str>>,
    retry_count: Vec<Option<i32>>,
    error: Vec<Option<String>>,
    rejection: Vec<Option<&'static str>>,
    processed_at: Vec<Option<DateTime<Utc>>>,
    next_retry_at: Vec<Option<DateTime<Utc>>>,
    dead_lettered_at: Vec<Option<DateTime<Utc>>>,
}

impl States {
    fn push(&mut self, state: Option<&State>) {
        self.status.push(state.map(|state| state.status.as_str()));
        self.retry_count.push(state.map(|state| state.retry_count));
        self.error.push(state.and_then(|state| state.error.clone()));
        self.rejection.push(state.and_then(|state| state.rejection).map(RejectionReason::as_str));
        self.processed_at.push(state.and_then(|state| state.processed_at));
        self.next_retry_at.push(state.and_then(|state| state.next_retry_at));
        self.dead_lettered_at.push(state.and_then(|state| state.dead_lettered_at));
    }
}

/// Updates rows from earlier batches.
async fn update(connection: &mut PgConnection, mut moved: Vec<Changed<'_>>) -> Result<(), sqlx::Error> {
    if moved.is_empty() {
        return Ok(());
    }
    drop_counted_duplicates(connection, &mut moved).await?;
    let (mut organizations, mut webhooks, mut positions, mut at) = (vec![], vec![], vec![], vec![]);
    let (mut duplicates, mut differs, mut deliveries, mut states) = (vec![], vec![], vec![], States::default());
    for ((organization, webhook), change) in &moved {
        organizations.push(*organization);
        webhooks.push(*webhook);
        positions.push(change.last_position);
        at.push(change.last_at);
        duplicates.push(count(&change.duplicates));
        differs.push(differ(&change.duplicates));
        deliveries.push(change.deliveries);
        states.push(change.state.as_ref());
    }
    sqlx::query(
        "with moved as (
         update webhook_logs w
         set applied_position = n.last_position, updated_at = n.last_at,
             duplicate_count = least(w.duplicate_count::bigint + n.duplicates, 2147483647)::int, body_differs = w.body_differs or n.differs,
             status = coalesce(n.status, w.status), retry_count = coalesce(n.retry_count, w.retry_count),
             error_message = case when n.status is null then w.error_message else n.error end,
             rejection = coalesce(n.rejection, w.rejection), deliveries = coalesce(n.deliveries, w.deliveries),
             processed_at = case when n.status is null then w.processed_at else n.processed_at end,
             next_retry_at = case when n.status is null then w.next_retry_at else n.next_retry_at end,
             dead_lettered_at = case when n.status is null then w.dead_lettered_at else n.dead_lettered_at end
         from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::timestamptz[], $5::int[], $6::bool[], $7::text[],
                     $8::int[], $9::text[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::int[],
                     $14::text[])
              as n (organization_id, webhook_id, last_position, last_at, duplicates, differs, status,
                    retry_count, error, processed_at, next_retry_at, dead_lettered_at, deliveries, rejection)
         where w.organization_id = n.organization_id and w.webhook_id = n.webhook_id
           and w.applied_position < n.last_position
         returning w.organization_id, w.received_at, w.position, w.status in ('pending', 'processing') as is_open
         ),
         closed as (
             delete from webhook_open o using moved m
             where (o.organization_id, o.received_at, o.position) = (m.organization_id, m.received_at, m.position)
               and not m.is_open
         )
         insert into webhook_open (organization_id, received_at, position)
         select organization_id, received_at, position from moved where is_open
         on conflict do nothing",
    )
    .bind(organizations)
    .bind(webhooks)
    .bind(positions)
    .bind(at)
    .bind(duplicates)
    .bind(differs)
    .bind(&states.status)
    .bind(&states.retry_count)
    .bind(&states.error)
    .bind(&states.processed_at)
    .bind(&states.next_retry_at)
    .bind(&states.dead_lettered_at)
    .bind(deliveries)
    .bind(&states.rejection)
    .execute(connection)
    .await
    .map(drop)
}

/// A repeated batch may begin in the middle of what a row has counted, so its counted duplicates are dropped.
async fn drop_counted_duplicates(connection: &mut PgConnection, moved: &mut [Changed<'_>]) -> Result<(), sqlx::Error> {
    let with_duplicates = moved.iter().filter(|(_, change)| !change.duplicates.is_empty());
    let (organizations, webhooks): (Vec<Uuid>, Vec<Uuid>) = with_duplicates.map(|(key, _)| *key).unzip();
    if webhooks.is_empty() {
        return Ok(());
    }
    let rows: Vec<(Uuid, Uuid, i64)> = sqlx::query_as(
        "select w.organization_id, w.webhook_id, w.applied_position
         from webhook_logs w join unnest($1::uuid[], $2::uuid[]) as n (organization_id, webhook_id)
              using (organization_id, webhook_id)",
    )
    .bind(organizations)
    .bind(webhooks)
    .fetch_all(connection)
    .await?;
    let applied: HashMap<(Uuid, Uuid), i64> = rows.into_iter().map(|(o, w, position)| ((o, w), position)).collect();
    for (key, change) in moved {
        if let Some(applied) = applied.get(key) {
            change.duplicates.retain(|told| told.position > *applied);
        }
    }
    Ok(())
}

async fn note_uses(
    connection: &mut PgConnection,
    uses: BTreeMap<(Uuid, Uuid, u32), DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    if uses.is_empty() {
        return Ok(());
    }
    let (mut organizations, mut providers, mut versions, mut at) = (vec![], vec![], vec![], vec![]);
    for ((organization, provider, version), used_at) in uses {
        organizations.push(organization);
        providers.push(provider);
        versions.push(version.cast_signed());
        at.push(used_at);
    }
    sqlx::query(
        "insert into provider_secret_uses as u (organization_id, provider_id, version, last_used_at)
         select * from unnest($1::uuid[], $2::uuid[], $3::int[], $4::timestamptz[])
         on conflict (organization_id, provider_id, version) do update
         set last_used_at = greatest(u.last_used_at, excluded.last_used_at)",
    )
    .bind(organizations)
    .bind(providers)
    .bind(versions)
    .bind(at)
    .execute(connection)
    .await
    .map(drop)
}
