create or replace function body_is_erased(p_organization uuid, p_webhook uuid) returns boolean
language sql stable
begin atomic
    select exists (
        select from events e
        where e.stream_id = p_webhook and e.aggregate_type = 'retention'
          and e.event_type = 'retention.body_erased' and e.organization_id = p_organization);
end;
comment on function body_is_erased is 'Whether the log says that somebody had this request erased.';
