-- The count of the month as it stands, made when it is not there yet. Where the limit is as new as
-- ten seconds, another node may not know of it and append uncounted, so the log is asked each time.
create or replace function used_in_month(
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
