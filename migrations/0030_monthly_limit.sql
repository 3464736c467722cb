-- The monthly limit, decided inside the append. The lock on an organization's head makes its appends
-- take turns, on any number of nodes, so counting under it is exact. Organizations without a limit
-- have no row here, and batches without any never come through these functions.
create table monthly_counters (
    organization_id uuid not null,
    month date not null,
    accepted bigint not null,
    limited_since timestamptz not null,
    primary key (organization_id, month)
) with (fillfactor = 50);
comment on table monthly_counters is 'Webhooks accepted in a month, of organizations that have a limit.';
comment on column monthly_counters.organization_id is 'The tenant.';
comment on column monthly_counters.month is 'First day of the month, UTC.';
comment on column monthly_counters.accepted is 'Accepted webhooks, duplicates apart.';
comment on column monthly_counters.limited_since is 'Since when there has been a limit; a later one is counted anew.';

select keep_tenants_apart('monthly_counters');
grant select, insert, update on monthly_counters to hookledger_worker;

-- What was accepted in a month, from the log: what the read model has counted, and what the log has
-- beyond that. Rows and checkpoint of a read model change in one transaction, so one statement sees
-- both as they belong together. Null where the read model is too far behind to wait for.
create function accepted_in_month(p_partition int, p_organization_id uuid, p_month date) returns bigint
language plpgsql as $$
declare
    counted bigint;
    counted_to bigint;
    head bigint;
begin
    select h.position, coalesce(c.position, 0),
           coalesce((select w.accepted from webhook_counts w
                     where w.organization_id = p_organization_id and w.month = p_month), 0)
    into head, counted_to, counted
    from log_heads h
    left join follower_checkpoints c on c.name = 'webhook_logs' and c.partition = h.partition
    where h.partition = p_partition;
    if head - counted_to > 200000 then
        return null;
    end if;
    return counted + (
        select count(*) from events e
        where e.partition = p_partition and e.position > counted_to and e.organization_id = p_organization_id
          and e.event_type = 'webhook.signature_verified'
          and e.recorded_at >= p_month::timestamp at time zone 'UTC');
end
$$;
comment on function accepted_in_month is 'Counts an organization''s month when a limit comes in the midst of it.';

-- The count of the month as it stands, made when it is not there yet. Where the limit is as new as
-- ten seconds, another node may not know of it and append uncounted, so the log is asked each time.
create function used_in_month(
    p_partition int, p_organization_id uuid, p_month date, p_limited_since timestamptz, p_now timestamptz
) returns bigint
language plpgsql as $$
declare
    counter record;
    used bigint;
begin
    select c.accepted, c.limited_since into counter
    from monthly_counters c where c.organization_id = p_organization_id and c.month = p_month;
    if found and counter.limited_since = p_limited_since and p_now >= p_limited_since + interval '10 s' then
        return counter.accepted;
    end if;
    if not found and p_limited_since + interval '10 s' < p_month::timestamp at time zone 'UTC' then
        used := 0;
    else
        used := accepted_in_month(p_partition, p_organization_id, p_month);
    end if;
    if used is not null then
        insert into monthly_counters (organization_id, month, accepted, limited_since)
        values (p_organization_id, p_month, used, p_limited_since)
        on conflict (organization_id, month)
        do update set accepted = excluded.accepted, limited_since = excluded.limited_since;
    end if;
    return used;
end
$$;
comment on function used_in_month is 'What an organization with a limit has used, under the lock on its head.';

-- The month in which events of these partitions are recorded now; their heads are locked.
create function recording_month(p_partitions int[], p_now timestamptz) returns date
language sql volatile as $$
    select date_trunc('month', max(greatest(h.recorded_at, p_now)) at time zone 'UTC')::date
    from log_heads h where h.partition = any (p_partitions)
$$;
comment on function recording_month is 'UTC; time never goes backwards in a partition.';

-- append_events, for a batch in which some organizations have a limit. Where all of it fits it is
-- appended; else HL001 is raised, nothing is appended, and the caller asks the careful way.
-- Answers a row per partition, and a row per limited organization.
create function append_events_limited(
    p_partitions int[], p_counts bigint[],
    e_partition int[], e_offset bigint[], e_aggregate_type text[], e_aggregate_id text[], e_sequence bigint[],
    e_event_type text[], e_event_version text[], e_payload json[], e_metadata json[], e_organization_id uuid[],
    b_partition int[], b_offset bigint[], b_organization_id uuid[], b_webhook_id uuid[], b_headers bytea[], b_body bytea[],
    q_partition int[], q_organization_id uuid[], q_count bigint[], q_limit bigint[], q_since timestamptz[]
) returns table (base_partition int, base_position bigint, limited_organization_id uuid, used_month date, used bigint)
language plpgsql as $$
declare
    now_ timestamptz;
    month_ date;
    used_ bigint;
begin
    perform from log_heads where partition = any (p_partitions) order by partition for update;
    now_ := clock_timestamp();
    month_ := recording_month(p_partitions, now_);
    for n in 1 .. cardinality(q_partition) loop
        used_ := used_in_month(q_partition[n], q_organization_id[n], month_, q_since[n], now_);
        if used_ is null or used_ + q_count[n] > q_limit[n] then
            raise exception 'the monthly limit of an organization is reached' using errcode = 'HL001';
        end if;
        used_ := used_ + q_count[n];
        update monthly_counters c set accepted = used_
        where c.organization_id = q_organization_id[n] and c.month = month_;
        return query select null::int, null::bigint, q_organization_id[n], month_, used_;
    end loop;
    return query
    select a.base_partition, a.base_position, null::uuid, null::date, null::bigint
    from append_events(p_partitions, p_counts, e_partition, e_offset, e_aggregate_type, e_aggregate_id, e_sequence,
                       e_event_type, e_event_version, e_payload, e_metadata, e_organization_id,
                       b_partition, b_offset, b_organization_id, b_webhook_id, b_headers, b_body) a;
    if recording_month(p_partitions, now_) <> month_ then
        raise exception 'a month began while it was counted' using errcode = 'HL001';
    end if;
end
$$;

-- Before append_events_checked, in one transaction with it: which units of a batch the limits leave
-- out. Duplicates cost nothing: what is in conflict is told apart before anything is counted.
-- Answers a row per unit that is left out; its month is null where it cannot be counted yet.
create function over_limits(
    p_partitions int[], e_unit int[], e_aggregate_type text[], e_aggregate_id text[], e_sequence bigint[],
    q_unit int[], q_partition int[], q_organization_id uuid[], q_limit bigint[], q_since timestamptz[]
) returns table (over_unit int, used_month date, used bigint)
language plpgsql as $$
declare
    now_ timestamptz;
    month_ date;
    used_ bigint;
    organization record;
    conflicting int[];
begin
    perform from log_heads where partition = any (p_partitions) order by partition for update;
    now_ := clock_timestamp();
    month_ := recording_month(p_partitions, now_);
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
        select q.organization_id, q.partition, max(q.since) as since
        from unnest(q_organization_id, q_partition, q_since) as q (organization_id, partition, since)
        group by q.organization_id, q.partition order by q.organization_id
    loop
        used_ := used_in_month(organization.partition, organization.organization_id, month_, organization.since, now_);
        return query
        select r.unit, case when used_ is not null then month_ end, used_
        from (select q.unit, q.limit_, row_number() over (order by q.unit) as place
              from unnest(q_unit, q_organization_id, q_limit) as q (unit, organization_id, limit_)
              where q.organization_id = organization.organization_id and q.unit <> all (conflicting)) r
        where used_ is null or used_ + r.place > r.limit_;
    end loop;
end
$$;
comment on function over_limits is 'Which units of a batch an organization''s monthly limit leaves out.';

-- After append_events_checked, in one transaction with it: counts what went in.
create function count_appended(p_partitions int[], q_organization_id uuid[], q_count bigint[])
returns table (limited_organization_id uuid, used_month date, used bigint)
language plpgsql as $$
begin
    return query
    update monthly_counters c set accepted = c.accepted + q.count_
    from unnest(q_organization_id, q_count) as q (organization_id, count_)
    where c.organization_id = q.organization_id and c.month = recording_month(p_partitions, '-infinity')
    returning c.organization_id, c.month, c.accepted;
end
$$;
comment on function count_appended is 'The heads say in which month the transaction recorded.';
