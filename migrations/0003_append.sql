-- Appending: one call per flush, with arrays. The heads are locked first, in ascending order, so
-- that flushes never deadlock; what follows is a statement of its own, with a snapshot that is
-- younger than the lock, so that it sees what the flush before it committed.

-- The optimistic way: nothing is checked. A stream's next sequence that is taken already raises
-- unique_violation and appends nothing; the caller then asks append_events_checked.
-- Answers the position that each partition had before.
create function append_events(
    p_partitions int[], p_counts bigint[],
    e_partition int[], e_offset bigint[], e_aggregate_type text[], e_aggregate_id text[], e_sequence bigint[],
    e_event_type text[], e_event_version text[], e_payload text[], e_metadata text[], e_organization_id uuid[],
    b_organization_id uuid[], b_webhook_id uuid[], b_headers bytea[], b_body bytea[]
) returns table (base_partition int, base_position bigint)
language plpgsql as $$
declare
    now_ timestamptz;
begin
    perform from log_heads where partition = any (p_partitions) order by partition for update;
    now_ := clock_timestamp();

    insert into events (partition, position, aggregate_type, aggregate_id, sequence,
                        event_type, event_version, payload, metadata, organization_id, recorded_at)
    select e.partition, h.position + e.offset_, e.aggregate_type, e.aggregate_id, e.sequence,
           e.event_type, e.event_version, e.payload::json, e.metadata::json, e.organization_id,
           greatest(h.recorded_at, now_)
    from unnest(e_partition, e_offset, e_aggregate_type, e_aggregate_id, e_sequence,
                e_event_type, e_event_version, e_payload, e_metadata, e_organization_id)
         as e (partition, offset_, aggregate_type, aggregate_id, sequence,
               event_type, event_version, payload, metadata, organization_id)
    join log_heads h on h.partition = e.partition;

    insert into webhook_bodies (organization_id, webhook_id, headers, body)
    select * from unnest(b_organization_id, b_webhook_id, b_headers, b_body);

    return query
    update log_heads h
    set position = h.position + c.count_, recorded_at = greatest(h.recorded_at, now_)
    from unnest(p_partitions, p_counts) as c (partition, count_)
    where h.partition = c.partition
    returning h.partition, h.position - c.count_;
end
$$;

-- The careful way: units that meet a taken sequence, or repeat an earlier unit of the same call,
-- are left out whole, and the rest is appended. A sequence of 0 means "at the end of the stream".
-- Answers the last position of each unit that was appended; units that are missing are conflicts.
create function append_events_checked(
    p_partitions int[],
    e_unit int[], e_partition int[], e_aggregate_type text[], e_aggregate_id text[], e_sequence bigint[],
    e_event_type text[], e_event_version text[], e_payload text[], e_metadata text[], e_organization_id uuid[],
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
               n.event_type, n.event_version, n.payload::json, n.metadata::json, n.organization_id,
               n.new_recorded_at
        from numbered n
    ),
    stored as (
        insert into webhook_bodies (organization_id, webhook_id, headers, body)
        select b.organization_id, b.webhook_id, b.headers, b.body
        from unnest(b_unit, b_organization_id, b_webhook_id, b_headers, b_body)
             as b (unit, organization_id, webhook_id, headers, body)
        where b.unit in (select g.unit from good g)
    ),
    moved as (
        update log_heads h
        set position = last.position, recorded_at = greatest(h.recorded_at, now_)
        from (select n.partition, max(n.new_position) as position from numbered n group by n.partition) last
        where h.partition = last.partition
    )
    select n.unit, max(n.new_position) from numbered n group by n.unit;
end
$$;
