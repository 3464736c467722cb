-- A flush is one call, and has an id that the same transaction records with what became of it. So one
-- whose outcome is unknown can be sent again: it is answered as the first time, or appended now.
create table flushes (
    id uuid primary key,
    recorded_at timestamptz not null,
    is_checked boolean not null,
    positions bigint[] not null,
    over_limit int[] not null,
    organizations uuid[] not null,
    months date[] not null,
    used bigint[] not null
);
comment on table flushes is 'What became of the flushes of the last minutes.';
comment on column flushes.id is 'Made by the node, once for all tries.';
comment on column flushes.recorded_at is 'Clock of the database under the lock.';
comment on column flushes.is_checked is 'Whether each unit was checked for conflicts.';
comment on column flushes.positions is
    'Checked: the last position of each unit, null for a conflict. Otherwise: the head that each partition had before.';
comment on column flushes.over_limit is 'Numbers of the units, from 0, that a monthly limit left out.';
comment on column flushes.organizations is 'Those with a limit.';
comment on column flushes.months is 'In which month each of them was counted, by its first day.';
comment on column flushes.used is 'What each of them has used of it now; null where it cannot be counted yet.';
-- Old rows are removed in this order.
create index flushes_recorded_at on flushes (recorded_at);
grant select, insert, delete on flushes to hookledger_worker;

-- A clock that is wrong once would stay in the log for good, since time never goes backwards there. So the
-- database's clock is believed only where another one agrees to within 5 minutes: a last event, or
-- what the node knows of time.
create function check_clock(p_now timestamptz, p_witnesses timestamptz[]) returns void
language plpgsql as $$
begin
    if not exists (
        select from unnest(p_witnesses) as w (time_)
        where w.time_ between p_now - interval '5 min' and p_now + interval '5 min')
    then
        raise exception 'the database''s clock says %, which neither the last event (%) nor the node''s clock (%) agrees with',
            p_now, (select max(w.time_) from unnest(p_witnesses[2:]) as w (time_)), p_witnesses[1]
            using errcode = 'HL002';
    end if;
end
$$;
comment on function check_clock is 'Raises HL002 where no witness agrees with the database''s clock; the first is the node''s.';

create function month_of(p_time timestamptz) returns date
language sql immutable
return date_trunc('month', p_time at time zone 'UTC')::date;
comment on function month_of is 'First day of the month, UTC.';

-- The optimistic way: no stream is looked at. A sequence that is taken already raises unique_violation, an
-- organization whose limit not all of the batch fits in HL001; nothing is appended then, and the
-- caller takes the checked way, under the same id.
create function append_batch(
    p_flush uuid, p_clocks timestamptz[], p_partitions int[],
    e_partition int[], e_offset bigint[], e_aggregate_type text[], e_aggregate_id text[], e_sequence bigint[],
    e_event_type text[], e_event_version text[], e_payload json[], e_metadata json[], e_organization_id uuid[],
    b_partition int[], b_offset bigint[], b_organization_id uuid[], b_webhook_id uuid[], b_headers bytea[], b_body bytea[],
    q_partition int[], q_organization_id uuid[], q_count bigint[], q_limit bigint[], q_since timestamptz[]
) returns flushes
language plpgsql as $$
declare
    flush_ flushes;
    now_ timestamptz;
    -- Partition p is element p + 1.
    heads bigint[];
    times timestamptz[];
    month_ date;
    used_ bigint;
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
    flush_ := row (p_flush, now_, false, heads, '{}', '{}', '{}', '{}');

    for n in 1 .. cardinality(q_partition) loop
        month_ := month_of(greatest(times[q_partition[n] + 1], now_));
        used_ := used_in_month(q_partition[n], q_organization_id[n], month_, q_since[n], now_);
        if used_ is null or used_ + q_count[n] > q_limit[n] then
            raise exception 'the monthly limit of an organization is reached' using errcode = 'HL001';
        end if;
        used_ := used_ + q_count[n];
        update monthly_counters c set accepted = used_
        where c.organization_id = q_organization_id[n] and c.month = month_;
        flush_.organizations := flush_.organizations || q_organization_id[n];
        flush_.months := flush_.months || month_;
        flush_.used := flush_.used || used_;
    end loop;

    insert into events (partition, position, aggregate_type, aggregate_id, sequence,
                        event_type, event_version, payload, metadata, organization_id, recorded_at)
    select e.partition, heads[e.partition + 1] + e.offset_, e.aggregate_type, e.aggregate_id, e.sequence,
           e.event_type, e.event_version, e.payload, e.metadata, e.organization_id,
           greatest(times[e.partition + 1], now_)
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

    insert into flushes select flush_.*;
    return flush_;
end
$$;
comment on function append_batch is 'Appends a flush without looking for conflicts.';

-- The checked way: units that a limit leaves out, that meet a taken sequence, or that repeat an earlier
-- unit of the same call are left out whole, and the rest is appended. A sequence of 0 means "at the
-- end of the stream". Duplicates cost nothing of a limit.
create function append_batch_checked(
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

-- Nodes of the earlier release append through these until they are replaced. Nothing else calls them.
create or replace function append_events(
    p_partitions int[], p_counts bigint[],
    e_partition int[], e_offset bigint[], e_aggregate_type text[], e_aggregate_id text[], e_sequence bigint[],
    e_event_type text[], e_event_version text[], e_payload json[], e_metadata json[], e_organization_id uuid[],
    b_partition int[], b_offset bigint[], b_organization_id uuid[], b_webhook_id uuid[], b_headers bytea[], b_body bytea[]
) returns table (base_partition int, base_position bigint)
language plpgsql as $$
begin
    return query
    select p.partition, f.positions[p.partition + 1]
    from append_batch(gen_random_uuid(), array[clock_timestamp()], p_partitions,
                      e_partition, e_offset, e_aggregate_type, e_aggregate_id, e_sequence,
                      e_event_type, e_event_version, e_payload, e_metadata, e_organization_id,
                      b_partition, b_offset, b_organization_id, b_webhook_id, b_headers, b_body,
                      '{}', '{}', '{}', '{}', '{}') f,
         unnest(p_partitions) as p (partition);
end
$$;

create or replace function append_events_checked(
    p_partitions int[],
    e_unit int[], e_partition int[], e_aggregate_type text[], e_aggregate_id text[], e_sequence bigint[],
    e_event_type text[], e_event_version text[], e_payload json[], e_metadata json[], e_organization_id uuid[],
    b_unit int[], b_organization_id uuid[], b_webhook_id uuid[], b_headers bytea[], b_body bytea[]
) returns table (appended_unit int, appended_position bigint)
language plpgsql as $$
begin
    return query
    select u.unit::int - 1, u.position
    from append_batch_checked(gen_random_uuid(), array[clock_timestamp()], p_partitions,
                              (select coalesce(max(e.unit), -1) + 1 from unnest(e_unit) as e (unit)),
                              e_unit, e_partition, e_aggregate_type, e_aggregate_id, e_sequence,
                              e_event_type, e_event_version, e_payload, e_metadata, e_organization_id,
                              b_unit, b_organization_id, b_webhook_id, b_headers, b_body,
                              '{}', '{}', '{}', '{}', '{}') f,
         unnest(f.positions) with ordinality as u (position, unit)
    where u.position is not null;
end
$$;

-- Their other two take the lock as it is now.
do $$
declare
    name text;
begin
    foreach name in array array['append_events_limited', 'over_limits'] loop
        execute replace(pg_get_functiondef(name::regproc),
            'perform from log_heads where partition = any (p_partitions) order by partition for update',
            'perform lock_heads(p_partitions)');
    end loop;
end
$$;
