-- A month may begin between judging a careful flush and counting it: then the new month has no row yet,
-- and what was appended would count for nothing. It gets a row that no limit has made, which the next
-- flush counts anew.
create or replace function count_appended(p_partitions int[], q_organization_id uuid[], q_count bigint[])
returns table (limited_organization_id uuid, used_month date, used bigint)
language plpgsql as $$
begin
    return query
    insert into monthly_counters as c (organization_id, month, accepted, limited_since)
    select q.organization_id, recording_month(p_partitions, '-infinity'), q.count_, '-infinity'
    from unnest(q_organization_id, q_count) as q (organization_id, count_)
    on conflict (organization_id, month) do update set accepted = c.accepted + excluded.accepted
    returning c.organization_id, c.month, c.accepted;
end
$$;
