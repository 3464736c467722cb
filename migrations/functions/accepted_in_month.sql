-- Webhooks accepted in a month: the count of the read model, and the events of the log after its checkpoint. Rows and
-- checkpoint of a read model change in one transaction, so one statement sees both as they belong together. Null if the
-- read model is too far behind to wait for.
create or replace function accepted_in_month(p_partition int, p_organization_id uuid, p_month date) returns bigint
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
        where e.partition = p_partition and e.first_position > counted_to - 100 and e.position > counted_to
          and e.organization_id = p_organization_id and e.event_type = 'webhook.signature_verified'
          and e.recorded_at >= p_month::timestamp at time zone 'UTC');
end
$$;
comment on function accepted_in_month is 'Counts an organization''s month when a limit comes in the midst of it.';
