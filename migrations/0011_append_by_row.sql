-- The append functions once more, cheaper. Measured on the path of an answer:
-- `select unnest(a), unnest(b)…` hands rows on one by one, where `from unnest(a, b…)` first wrote
-- every column into a store of its own; the heads are looked up in an array instead of by a hash
-- join, which hashed the payloads; json comes in as json, not as text to be cast; and a body lies
-- under the position of its unit's first event.
drop function append_events(int[], bigint[], int[], bigint[], text[], text[], bigint[], text[], text[], text[], text[],
                            uuid[], uuid[], uuid[], bytea[], bytea[]);
drop function append_events_checked(int[], int[], int[], text[], text[], bigint[], text[], text[], text[], text[],
                                    uuid[], int[], uuid[], uuid[], bytea[], bytea[]);

-- The optimistic way: nothing is checked. A stream's next sequence that is taken already raises
-- unique_violation and appends nothing; the caller then asks append_events_checked.
-- Answers the position that each partition had before.
create function append_events(
    p_partitions int[], p_counts bigint[],
    e_partition int[], e_offset bigint[], e_aggregate_type text[], e_aggregate_id text[], e_sequence bigint[],
    e_event_type text[], e_event_version text[], e_payload json[], e_metadata json[], e_organization_id uuid[],
    b_partition int[], b_offset bigint[], b_organization_id uuid[], b_webhook_id uuid[], b_headers bytea[], b_body bytea[]
) returns table (base_partition int, base_position bigint)
language plpgsql as $$
declare
    now_ timestamptz;
    heads bigint[];
    times timestamptz[];
begin
    perform from log_heads where partition = any (p_partitions) order by partition for update;
    now_ := clock_timestamp();
    -- Partition p is element p + 1.
    select array_agg(h.position order by h.partition), array_agg(greatest(h.recorded_at, now_) order by h.partition)
    into heads, times from log_heads h;

    insert into events (partition, position, aggregate_type, aggregate_id, sequence,
                        event_type, event_version, payload, metadata, organization_id, recorded_at)
    select e.partition, heads[e.partition + 1] + e.offset_, e.aggregate_type, e.aggregate_id, e.sequence,
           e.event_type, e.event_version, e.payload, e.metadata, e.organization_id, times[e.partition + 1]
    from (select unnest(e_partition) as partition, unnest(e_offset) as offset_,
                 unnest(e_aggregate_type) as aggregate_type, unnest(e_aggregate_id) as aggregate_id,
                 unnest(e_sequence) as sequence, unnest(e_event_type) as event_type,
                 unnest(e_event_version) as event_version, unnest(e_payload) as payload,
                 unnest(e_metadata) as metadata, unnest(e_organization_id) as organization_id) e;

    insert into webhook_bodies (organization_id, position, webhook_id, headers, body)
    select b.organization_id, heads[b.partition + 1] + b.offset_, b.webhook_id, b.headers, b.body
    from (select unnest(b_organization_id) as organization_id, unnest(b_partition) as partition,
                 unnest(b_offset) as offset_, unnest(b_webhook_id) as webhook_id,
                 unnest(b_headers) as headers, unnest(b_body) as body) b;

    return query
    update log_heads h
    set position = h.position + c.count_, recorded_at = times[h.partition + 1]
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
    select n.unit, max(n.new_position) from numbered n group by n.unit;
end
$$;
