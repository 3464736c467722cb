-- Times never decrease within a partition, so a binary search over an organization's own commits finds it: nothing else
-- is read, and row-level security hides nothing that matters.
create or replace function first_position_since(p_organization_id uuid, p_partition int, p_time timestamptz) returns bigint
language plpgsql stable as $$
declare
    -- Everything before `low` was recorded earlier, nothing from `high` on was.
    low bigint := 0;
    high bigint := coalesce((
        select c.position + 1 from commits c
        where c.organization_id = p_organization_id and c.partition = p_partition
        order by c.position desc limit 1), 0);
    middle bigint;
    commit_ record;
begin
    while low < high loop
        middle := low + (high - low) / 2;
        select c.position, c.recorded_at into commit_ from commits c
        where c.organization_id = p_organization_id and c.partition = p_partition and c.position >= middle
        order by c.position limit 1;
        if not found or commit_.recorded_at >= p_time then
            high := middle;
        else
            low := commit_.position + 1;
        end if;
    end loop;
    return low;
end
$$;
comment on function first_position_since is 'Where the first commit of an organization is that was recorded at a time or later, or would be.';
