-- The checked way: units that a limit leaves out, that meet a taken sequence, or that repeat an earlier
-- unit of the same call are left out whole, and the rest is appended. A sequence of 0 means "at the
-- end of the stream". Duplicates cost nothing of a limit.
create or replace function append_batch_checked(
    p_flush uuid, p_clocks timestamptz[], p_partitions int[], p_units int,
    e_unit int[], e_partition int[], e_aggregate_type text[], e_aggregate_id text[], e_sequence bigint[],
    e_event_type text[], e_event_version text[], e_payload json[], e_metadata json[], e_organization_id uuid[],
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

    if cardinality(q_unit) > 0 then
        conflicting := array(
            select e.unit
            from (select f.unit, f.aggregate_type, f.aggregate_id, f.sequence,
                         row_number() over (partition by f.aggregate_type, f.aggregate_id, f.sequence
                                            order by f.ordinal) as n
                  from unnest(e_unit, e_aggregate_type, e_aggregate_id, e_sequence) with ordinality
                       as f (unit, aggregate_type, aggregate_id, sequence, ordinal)
                  where f.sequence > 0) e
            where e.n > 1 or exists (
                select from events x
                where (x.aggregate_type, x.aggregate_id, x.sequence) = (e.aggregate_type, e.aggregate_id, e.sequence)));
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
        -- What repeats a unit that is left out is no repetition without it, and nobody has counted it.
        if cardinality(flush_.over_limit) > 0 then
            flush_.over_limit := flush_.over_limit || array(
                select distinct e.unit
                from unnest(e_unit, e_aggregate_type, e_aggregate_id, e_sequence)
                     as e (unit, aggregate_type, aggregate_id, sequence)
                where e.sequence > 0 and e.unit = any (q_unit) and e.unit <> all (flush_.over_limit)
                  and (e.aggregate_type, e.aggregate_id, e.sequence) in (
                      select o.aggregate_type, o.aggregate_id, o.sequence
                      from unnest(e_unit, e_aggregate_type, e_aggregate_id, e_sequence)
                           as o (unit, aggregate_type, aggregate_id, sequence)
                      where o.unit = any (flush_.over_limit)));
        end if;
    end if;

    with e as materialized (
        select e.* from unnest(e_unit, e_partition, e_aggregate_type, e_aggregate_id, e_sequence,
                               e_event_type, e_event_version, e_payload, e_metadata, e_organization_id)
            with ordinality
            as e (unit, partition, aggregate_type, aggregate_id, sequence,
                  event_type, event_version, payload, metadata, organization_id, ordinal)
        where e.unit <> all (flush_.over_limit)
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
               heads[g.partition + 1] + row_number() over (partition by g.partition order by g.sequence = 0, g.ordinal)
                   as new_position,
               case when g.sequence > 0 then g.sequence else
                   (select coalesce(max(x.sequence), 0) from events x
                    where x.aggregate_type = g.aggregate_type and x.aggregate_id = g.aggregate_id)
                   + (select count(*) from good s
                      where s.aggregate_type = g.aggregate_type and s.aggregate_id = g.aggregate_id
                        and s.sequence > 0)
                   + row_number() over (partition by g.aggregate_type, g.aggregate_id, g.sequence > 0
                                        order by g.ordinal)
               end as new_sequence
        from good g
    ),
    inserted as (
        insert into events (partition, position, aggregate_type, aggregate_id, sequence,
                            event_type, event_version, payload, metadata, organization_id, recorded_at)
        select n.partition, n.new_position, n.aggregate_type, n.aggregate_id, n.new_sequence,
               n.event_type, n.event_version, n.payload, n.metadata, n.organization_id,
               greatest(times[n.partition + 1], now_)
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
        select distinct on (n.unit) n.unit, max(n.new_position) over (partition by n.unit, n.partition) as position
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
