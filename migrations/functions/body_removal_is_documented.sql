create or replace function body_removal_is_documented(p_organization uuid, p_webhook uuid, p_position bigint) returns boolean
language sql stable
begin atomic
    select p_position <= coalesce((
               select (e.payload ->> 'toPosition')::bigint from events e
               where e.stream_id = p_organization and e.aggregate_type = 'retention'
                 and e.organization_id = p_organization
                 and e.partition = get_byte(uuid_send(p_organization), 15) % 16
               -- The first is an index's order, the second that within a commit.
               order by e.first_sequence desc, e.sequence desc limit 1), 0)
        or body_is_erased(p_organization, p_webhook);
end;
comment on function body_removal_is_documented is 'Whether the log says that this request is not kept any more.';
