-- A unit may span partitions, whose positions have nothing to do with each other. Its place is the
-- last one in the partition of its last event, not the highest number of all.
-- The careful way: units that meet a taken sequence, or repeat an earlier unit of the same call,
-- are left out whole, and the rest is appended. A sequence of 0 means "at the end of the stream".
-- Answers the last position of each unit that was appended; units that are missing are conflicts.
create or replace function append_events_checked(
    p_partitions int[],
    e_unit int[], e_partition int[], e_aggregate_type text[], e_aggregate_id text[], e_sequence bigint[],
    e_event_type text[], e_event_version text[], e_payload json[], e_metadata json[], e_organization_id uuid[],
    b_unit int[], b_organization_id uuid[], b_webhook_id uuid[], b_headers bytea[], b_body bytea[]
) returns table (appended_unit int, appended_position bigint)
language plpgsql as $$
declare
    now_ timestamptz;
begin
    perform from log_heads where partition = any (p_partitions) order by partition for update;
    now_ := clock_timestamp();

    return query
    with e as materialized (
        select * from unnest(e_unit, e_partition, e_aggregate_type, e_aggregate_id, e_sequence,
                             e_event_type, e_event_version, e_payload, e_metadata, e_organization_id)
            with ordinality
            as e (unit, partition, aggregate_type, aggregate_id, sequence,
                  event_type, event_version, payload, metadata, organization_id, ordinal)
    ),
    taken as (
        select e.unit from e
        where e.sequence > 0 and exists (
            select from events x
            where (x.aggregate_type, x.aggregate_id, x.sequence) = (e.aggregate_type, e.aggregate_id, e.sequence))
    ),
    repeated as (
        select r.unit
        from (select e.unit,
                     row_number() over (partition by e.aggregate_type, e.aggregate_id, e.sequence
                                        order by e.ordinal) as n
              from e where e.sequence > 0) r
        where r.n > 1
    ),
    good as materialized (
        select * from e
        where e.unit not in (select t.unit from taken t union all select r.unit from repeated r)
    ),
    numbered as materialized (
        select g.*,
               h.position + row_number() over (partition by g.partition order by g.sequence = 0, g.ordinal)
                   as new_position,
               greatest(h.recorded_at, now_) as new_recorded_at,
               case when g.sequence > 0 then g.sequence else
                   (select coalesce(max(x.sequence), 0) from events x
                    where x.aggregate_type = g.aggregate_type and x.aggregate_id = g.aggregate_id)
                   + (select count(*) from good s
                      where s.aggregate_type = g.aggregate_type and s.aggregate_id = g.aggregate_id
                        and s.sequence > 0)
                   + row_number() over (partition by g.aggregate_type, g.aggregate_id, g.sequence > 0
                                        order by g.ordinal)
               end as new_sequence
        from good g join log_heads h on h.partition = g.partition
    ),
    inserted as (
        insert into events (partition, position, aggregate_type, aggregate_id, sequence,
                            event_type, event_version, payload, metadata, organization_id, recorded_at)
        select n.partition, n.new_position, n.aggregate_type, n.aggregate_id, n.new_sequence,
               n.event_type, n.event_version, n.payload, n.metadata, n.organization_id,
               n.new_recorded_at
        from numbered n
    ),
    stored as (
        insert into webhook_bodies (organization_id, position, webhook_id, headers, body)
        select b.organization_id, first.new_position, b.webhook_id, b.headers, b.body
        from unnest(b_unit, b_organization_id, b_webhook_id, b_headers, b_body)
             as b (unit, organization_id, webhook_id, headers, body)
        join (select distinct on (n.unit) n.unit, n.new_position from numbered n order by n.unit, n.ordinal) first
             on first.unit = b.unit
    ),
    moved as (
        update log_heads h
        set position = last.position, recorded_at = greatest(h.recorded_at, now_)
        from (select n.partition, max(n.new_position) as position from numbered n group by n.partition) last
        where h.partition = last.partition
    )
    select distinct on (n.unit) n.unit, max(n.new_position) over (partition by n.unit, n.partition)
    from numbered n
    order by n.unit, n.ordinal desc;
end
$$;
