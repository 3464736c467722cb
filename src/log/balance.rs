//! Where deliveries stand, and webhooks that have none, counted from their events alone, to check what is derived
//! from them.
//!
//! The type of an event says which status its delivery or webhook enters; the event before it in the stream says which
//! status it leaves. So a stretch of the log can be counted without knowing anything before it. A webhook that matches
//! routes is handed over to its deliveries, which are pending before their first event.

use hookledger_aggregates::OrganizationId;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::unit::LogPosition;

/// The status after each event. A merged webhook has none: it is a duplicate of another. A routed webhook has
/// succeeded if it matched no route; otherwise it has none, because its deliveries do.
const MOVES: [(&str, &str); 14] = [
    ("webhook.received", "pending"),
    ("webhook.received_unverified", "pending"),
    ("webhook.routed", "succeeded"),
    ("webhook.verification_failed", "rejected"),
    ("webhook.rejected", "rejected"),
    ("webhook.merged", "merged"),
    ("delivery.attempt_started", "processing"),
    ("delivery.attempt_succeeded", "succeeded"),
    ("delivery.attempt_failed", "failed"),
    ("delivery.attempt_abandoned", "failed"),
    ("delivery.retry_scheduled", "failed"),
    ("delivery.dead_lettered", "dead_lettered"),
    ("delivery.retry_requested", "pending"),
    ("delivery.cancelled", "cancelled"),
];

/// How a stretch of the log changes an organization's counts.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct BalanceChange {
    pub organization_id: Uuid,
    pub received: i64,
    /// Outcomes that they are owed: one for each delivery, and one for a webhook without deliveries.
    pub outcomes: i64,
    pub duplicates: i64,
    pub pending: i64,
    pub processing: i64,
    pub succeeded: i64,
    pub failed: i64,
    pub dead_lettered: i64,
    pub cancelled: i64,
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
             select e.organization_id, e.aggregate_type, e.stream_id, e.sequence, e.event_type,
                    case when r.matched > 0 then 'routed' else m.place end as place, coalesce(r.matched, 0) as matched,
                    case e.event_type when 'webhook.duplicate_received' then 1
                                      when 'webhook.duplicates_counted' then (e.payload ->> 'count')::bigint
                                      else 0 end as duplicates
             from events e left join moves m using (event_type)
             left join lateral (
                 select json_array_length(e.payload -> 'matched') as matched where e.event_type = 'webhook.routed') r
                 on true
             where e.partition = $1 and e.first_position > $2 - 100 and e.first_position <= $3
               and e.position > $2 and e.position <= $3
               and e.aggregate_type in ('webhook', 'delivery')
               and (m.place is not null
                    or e.event_type in ('webhook.duplicate_received', 'webhook.duplicates_counted'))
         ),
         streams as (
             select organization_id, aggregate_type, stream_id, min(sequence) as first,
                    (array_agg(place order by sequence desc))[1] as place
             from batch where place is not null group by 1, 2, 3
         ),
         moved as (
             select organization_id, place, 1 as n from streams
             union all
             select organization_id, 'pending', matched from batch where matched > 0
             union all
             select organization_id, 'pending', -1 from streams where aggregate_type = 'delivery' and first = 1
             union all
             select s.organization_id, before.place, -1
             from streams s
             cross join lateral (
                 select m.place from events e join moves m using (event_type)
                 where e.stream_id = s.stream_id and e.aggregate_type = s.aggregate_type and e.sequence < s.first
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
                    coalesce(sum(n) filter (where place = 'cancelled'), 0)::bigint as cancelled,
                    coalesce(sum(n) filter (where place = 'rejected'), 0)::bigint as rejected
             from moved group by 1
         ),
         receipts as (
             select organization_id,
                    count(*) filter (where event_type in ('webhook.received', 'webhook.received_unverified'))
                        - count(*) filter (where event_type in ('webhook.verification_failed', 'webhook.merged'))
                        as received,
                    sum(greatest(matched - 1, 0))::bigint as further,
                    sum(duplicates)::bigint as duplicates
             from batch group by 1
         )
         select r.organization_id, r.received, r.received + r.further as outcomes, r.duplicates,
                coalesce(p.pending, 0) as pending,
                coalesce(p.processing, 0) as processing, coalesce(p.succeeded, 0) as succeeded,
                coalesce(p.failed, 0) as failed, coalesce(p.dead_lettered, 0) as dead_lettered,
                coalesce(p.cancelled, 0) as cancelled, coalesce(p.rejected, 0) as rejected
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

/// The status of a webhook, or of each of its deliveries, after the events up to some position; and the position of
/// its first event.
#[derive(Clone, Debug, FromRow)]
pub struct Standing {
    pub webhook_id: Uuid,
    pub position: i64,
    /// In alphabetical order.
    pub places: Vec<String>,
}

/// The newest webhooks of an organization received before one position, with their statuses at another.
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
         select f.stream_id as webhook_id, f.position,
                coalesce(d.places, array_remove(array[last.place], null)) as places
         from (
             select stream_id, position from events
             where partition = $1 and organization_id = $2 and first_position < $3 and position < $3
               and aggregate_type = 'webhook'
               and event_type in ('webhook.received', 'webhook.received_unverified', 'webhook.rejected')
             order by first_position desc, position desc limit $5) f
         left join lateral (
             select m.place, e.payload -> 'matched' as matched from events e join moves m using (event_type)
             where e.stream_id = f.stream_id and e.aggregate_type = 'webhook' and e.partition = $1
               and e.position <= $4
             order by e.first_sequence desc, e.sequence desc limit 1) last on true
         left join lateral (
             select array_agg(coalesce(o.place, 'pending') order by coalesce(o.place, 'pending')) as places
             from json_array_elements(coalesce(last.matched, '[]')) as n (to_route)
             left join lateral (
                 select m.place from events e join moves m using (event_type)
                 where e.stream_id = (n.to_route ->> 'deliveryId')::uuid and e.aggregate_type = 'delivery'
                   and e.partition = $1 and e.position <= $4
                 order by e.first_sequence desc, e.sequence desc limit 1) o on true) d on true
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
    fn every_event_of_a_webhook_or_delivery_moves_it_or_is_known_not_to() {
        let is_counted = |name: &&str| name.starts_with("webhook.") || name.starts_with("delivery.");
        let types: Vec<_> = Event::types().map(|(name, _)| name).filter(is_counted).collect();
        assert_eq!(types.len(), MOVES.len() + STAYS.len());
        for name in types {
            assert!(MOVES.iter().any(|(moves, _)| *moves == name) != STAYS.contains(&name), "{name}");
        }
    }
}
