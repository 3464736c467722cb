//! Statuses of webhooks, counted from their events alone, to check what is derived from them.
//!
//! The type of an event says which status its webhook enters; the event before it in the stream says which
//! status it leaves. So a stretch of the log can be counted without knowing anything before it.

use hookledger_aggregates::OrganizationId;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::unit::LogPosition;

/// The status after each event. A merged webhook has none: it is a duplicate of another.
const MOVES: [(&str, &str); 13] = [
    ("webhook.received", "pending"),
    ("webhook.received_unverified", "pending"),
    ("webhook.recorded", "succeeded"),
    ("webhook.verification_failed", "rejected"),
    ("webhook.rejected", "rejected"),
    ("webhook.merged", "merged"),
    ("webhook.attempt_started", "processing"),
    ("webhook.attempt_succeeded", "succeeded"),
    ("webhook.attempt_failed", "failed"),
    ("webhook.attempt_abandoned", "failed"),
    ("webhook.retry_scheduled", "failed"),
    ("webhook.dead_lettered", "dead_lettered"),
    ("webhook.retry_requested", "pending"),
];

/// How a stretch of the log changes an organization's counts.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct BalanceChange {
    pub organization_id: Uuid,
    pub received: i64,
    pub duplicates: i64,
    pub pending: i64,
    pub processing: i64,
    pub succeeded: i64,
    pub failed: i64,
    pub dead_lettered: i64,
    pub rejected: i64,
}

fn moves() -> (Vec<&'static str>, Vec<&'static str>) {
    MOVES.into_iter().unzip()
}

/// Changes that the events between two positions of one partition make to the counts.
pub async fn balance_changes(
    connection: &mut PgConnection,
    after: LogPosition,
    to: i64,
) -> Result<Vec<BalanceChange>, sqlx::Error> {
    let (types, places) = moves();
    sqlx::query_as(
        "with moves as (select * from unnest($4::text[], $5::text[]) as m (event_type, place)),
         batch as (
             select e.organization_id, e.stream_id, e.sequence, e.event_type, m.place,
                    case e.event_type when 'webhook.duplicate_received' then 1
                                      when 'webhook.duplicates_counted' then (e.payload ->> 'count')::bigint
                                      else 0 end as duplicates
             from events e left join moves m using (event_type)
             where e.partition = $1 and e.first_position > $2 - 100 and e.first_position <= $3
               and e.position > $2 and e.position <= $3 and e.aggregate_type = 'webhook'
               and (m.place is not null
                    or e.event_type in ('webhook.duplicate_received', 'webhook.duplicates_counted'))
         ),
         streams as (
             select organization_id, stream_id, min(sequence) as first,
                    (array_agg(place order by sequence desc))[1] as place
             from batch where place is not null group by 1, 2
         ),
         moved as (
             select organization_id, place, 1 as n from streams
             union all
             select s.organization_id, before.place, -1
             from streams s
             cross join lateral (
                 select m.place from events e join moves m using (event_type)
                 where e.stream_id = s.stream_id and e.aggregate_type = 'webhook' and e.sequence < s.first
                   and e.first_sequence < s.first and e.partition = $1
                 order by e.first_sequence desc, e.sequence desc limit 1) before
             where s.first > 1
         ),
         places as (
             select organization_id,
                    coalesce(sum(n) filter (where place = 'pending'), 0)::bigint as pending,
                    coalesce(sum(n) filter (where place = 'processing'), 0)::bigint as processing,
                    coalesce(sum(n) filter (where place = 'succeeded'), 0)::bigint as succeeded,
                    coalesce(sum(n) filter (where place = 'failed'), 0)::bigint as failed,
                    coalesce(sum(n) filter (where place = 'dead_lettered'), 0)::bigint as dead_lettered,
                    coalesce(sum(n) filter (where place = 'rejected'), 0)::bigint as rejected
             from moved group by 1
         ),
         receipts as (
             select organization_id,
                    count(*) filter (where event_type in ('webhook.received', 'webhook.received_unverified'))
                        - count(*) filter (where event_type in ('webhook.verification_failed', 'webhook.merged'))
                        as received,
                    sum(duplicates)::bigint as duplicates
             from batch group by 1
         )
         select r.organization_id, r.received, r.duplicates, coalesce(p.pending, 0) as pending,
                coalesce(p.processing, 0) as processing, coalesce(p.succeeded, 0) as succeeded,
                coalesce(p.failed, 0) as failed, coalesce(p.dead_lettered, 0) as dead_lettered,
                coalesce(p.rejected, 0) as rejected
         from receipts r left join places p using (organization_id)
         order by r.organization_id",
    )
    .bind(after.partition.number())
    .bind(after.position)
    .bind(to)
    .bind(types)
    .bind(places)
    .fetch_all(connection)
    .await
}

/// A webhook's status after its events up to some position, and the position of its first event.
#[derive(Clone, Debug, FromRow)]
pub struct Standing {
    pub webhook_id: Uuid,
    pub position: i64,
    pub place: Option<String>,
}

/// The newest webhooks of an organization received before one position, with their status at another.
pub async fn standings_before(
    connection: &mut PgConnection,
    organization: OrganizationId,
    before: i64,
    at: i64,
    limit: i64,
) -> Result<Vec<Standing>, sqlx::Error> {
    let (types, places) = moves();
    sqlx::query_as(
        "with moves as (select * from unnest($6::text[], $7::text[]) as m (event_type, place))
         select f.stream_id as webhook_id, f.position, last.place
         from (
             select stream_id, position from events
             where partition = $1 and organization_id = $2 and first_position < $3 and position < $3
               and aggregate_type = 'webhook'
               and event_type in ('webhook.received', 'webhook.received_unverified', 'webhook.rejected')
             order by first_position desc, position desc limit $5) f
         left join lateral (
             select m.place from events e join moves m using (event_type)
             where e.stream_id = f.stream_id and e.aggregate_type = 'webhook' and e.partition = $1
               and e.position <= $4
             order by e.first_sequence desc, e.sequence desc limit 1) last on true
         order by f.position desc",
    )
    .bind(organization.partition().number())
    .bind(organization.uuid())
    .bind(before)
    .bind(at)
    .bind(limit)
    .bind(types)
    .bind(places)
    .fetch_all(connection)
    .await
}

#[cfg(test)]
mod tests {
    use hookledger_aggregates::Event;

    use super::*;

    /// Events that leave the status unchanged, or that are alone in a stream without a webhook.
    const STAYS: [&str; 6] = [
        "webhook.signature_verified",
        "webhook.duplicate_received",
        "webhook.duplicates_counted",
        "webhook.duplicate_body_kept",
        "webhook.identified",
        "webhook.transmission_bound",
    ];

    #[test]
    fn every_event_of_a_webhook_moves_it_or_is_known_not_to() {
        let types: Vec<_> = Event::types().map(|(name, _)| name).filter(|name| name.starts_with("webhook.")).collect();
        assert_eq!(types.len(), MOVES.len() + STAYS.len());
        for name in types {
            assert!(MOVES.iter().any(|(moves, _)| *moves == name) != STAYS.contains(&name), "{name}");
        }
    }
}
