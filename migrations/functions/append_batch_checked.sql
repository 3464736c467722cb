-- The checked way: units that a limit leaves out, or that are in conflict with the log or an earlier unit of the same
-- call, are left out whole, and the rest is appended. A first sequence of 0 means "at the end of the stream".
-- Duplicates cost nothing of a limit.
create or replace function append_batch_checked(
    p_flush uuid, p_clocks timestamptz[], p_partitions int[], p_units int,
    c_unit int[], c_partition int[], c_events int[], c_aggregate_type text[], c_stream_id uuid[],
    c_first_sequence int[], c_organization_id uuid[], c_metadata text[], c_data text[],
    b_unit int[], b_organization_id uuid[], b_webhook_id uuid[], b_headers bytea[], b_body bytea[],
    q_unit int[], q_partition int[], q_organization_id uuid[], q_limit bigint[], q_since timestamptz[]
) returns flushes
language plpgsql as $$
declare
    flush_ flushes;
    now_ timestamptz;
    -- Partition p is element p + 1.
    heads bigint[];
    times timestamptz[];
    conflicting int[];
    organization record;
    month_ date;
    used_ bigint;
    count_ bigint;
begin
    perform lock_heads(p_partitions);
    -- An earlier try has ended by now: it held the same heads.
    select * into flush_ from flushes f where f.id = p_flush;
    if found then
        return flush_;
    end if;
    now_ := clock_timestamp();
    select array_agg(h.position order by h.partition), array_agg(h.recorded_at order by h.partition)
    into heads, times from log_heads h;
    perform check_clock(now_, p_clocks || times);
    flush_ := row (p_flush, now_, true, '{}', '{}', '{}', '{}', '{}');
    conflicting := conflicting_units('{}', c_unit, c_events, c_stream_id, c_aggregate_type, c_first_sequence);

    for organization in
        select q.organization_id as id, q.partition, max(q.since) as since
        from unnest(q_organization_id, q_partition, q_since) as q (organization_id, partition, since)
        group by q.organization_id, q.partition order by q.organization_id
    loop
        month_ := month_of(greatest(times[organization.partition + 1], now_));
        used_ := used_in_month(organization.partition, organization.id, month_, organization.since, now_);
        flush_.organizations := flush_.organizations || organization.id;
        flush_.months := flush_.months || month_;
        flush_.used := flush_.used || used_;
        flush_.over_limit := flush_.over_limit || array(
            select r.unit
            from (select q.unit, q.limit_, row_number() over (order by q.unit) as place
                  from unnest(q_unit, q_organization_id, q_limit) as q (unit, organization_id, limit_)
                  where q.organization_id = organization.id and q.unit <> all (conflicting)) r
            where used_ is null or used_ + r.place > r.limit_);
    end loop;
    if cardinality(flush_.over_limit) > 0 then
        -- A unit that repeats one that is left out is no duplicate any more, and was not counted. It is left out too.
        flush_.over_limit := flush_.over_limit || array(
            select distinct c.unit
            from unnest(c_unit, c_aggregate_type, c_stream_id, c_first_sequence)
                 as c (unit, aggregate_type, stream_id, first_sequence)
            where c.first_sequence > 0 and c.unit = any (q_unit) and c.unit <> all (flush_.over_limit)
              and (c.aggregate_type, c.stream_id, c.first_sequence) in (
                  select o.aggregate_type, o.stream_id, o.first_sequence
                  from unnest(c_unit, c_aggregate_type, c_stream_id, c_first_sequence)
                       as o (unit, aggregate_type, stream_id, first_sequence)
                  where o.unit = any (flush_.over_limit)));
        conflicting := conflicting_units(
            flush_.over_limit, c_unit, c_events, c_stream_id, c_aggregate_type, c_first_sequence);
    end if;

    with good as materialized (
        select c.* from unnest(c_unit, c_partition, c_events, c_aggregate_type, c_stream_id, c_first_sequence,
                               c_organization_id, c_metadata, c_data)
            with ordinality
            as c (unit, partition, events, aggregate_type, stream_id, first_sequence,
                  organization_id, metadata, data, ordinal)
        where c.unit <> all (flush_.over_limit) and c.unit <> all (conflicting)
    ),
    numbered as materialized (
        select g.*,
               heads[g.partition + 1] + 1 - g.events
                   + sum(g.events) over (partition by g.partition order by g.first_sequence = 0, g.ordinal)
                   as new_position,
               case when g.first_sequence > 0 then g.first_sequence else
                   coalesce((select x.first_sequence + x.events from commits x
                             where x.stream_id = g.stream_id and x.aggregate_type = g.aggregate_type
                             order by x.first_sequence desc limit 1), 1)
                   + (select coalesce(sum(s.events), 0) from good s
                      where s.aggregate_type = g.aggregate_type and s.stream_id = g.stream_id
                        and s.first_sequence > 0)
                   - g.events
                   + sum(g.events) over (partition by g.aggregate_type, g.stream_id, g.first_sequence > 0
                                         order by g.ordinal)
               end as new_sequence
        from good g
    ),
    inserted as (
        insert into commits (partition, position, events, aggregate_type, stream_id, first_sequence,
                             organization_id, recorded_at, metadata, data)
        select n.partition, n.new_position, n.events, n.aggregate_type, n.stream_id, n.new_sequence,
               n.organization_id, greatest(times[n.partition + 1], now_), n.metadata, n.data
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
    -- A unit may span partitions, whose positions have nothing to do with each other: its place is
    -- the last one in the partition of its last event.
    placed as (
        select distinct on (n.unit) n.unit,
               max(n.new_position + n.events - 1) over (partition by n.unit, n.partition) as position
        from numbered n order by n.unit, n.ordinal desc
    )
    select coalesce(array_agg(p.position order by u.unit), '{}') into flush_.positions
    from generate_series(0, p_units - 1) as u (unit) left join placed p on p.unit = u.unit;

    for n in 1 .. cardinality(flush_.organizations) loop
        count_ := (select count(*) from unnest(q_unit, q_organization_id) as q (unit, organization_id)
                   where q.organization_id = flush_.organizations[n] and flush_.positions[q.unit + 1] is not null);
        continue when count_ = 0;
        flush_.used[n] := flush_.used[n] + count_;
        update monthly_counters c set accepted = flush_.used[n]
        where c.organization_id = flush_.organizations[n] and c.month = flush_.months[n];
    end loop;

    insert into flushes select flush_.*;
    return flush_;
end
$$;
comment on function append_batch_checked is 'Appends what is neither in conflict nor over a limit, and says which units are.';
