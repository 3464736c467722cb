-- Bodies go when they are old, and a body or a person's data when somebody asks for it. The log says so
-- first; what removes them follows it.

create function body_is_erased(p_organization uuid, p_webhook uuid) returns boolean
language sql stable
begin atomic
    select exists (
        select from events e
        where e.aggregate_id = p_webhook::text and e.aggregate_type = 'retention'
          and e.event_type = 'retention.body_erased' and e.organization_id = p_organization);
end;
comment on function body_is_erased is 'Whether the log says that somebody had this request erased.';

create function body_removal_is_documented(p_organization uuid, p_webhook uuid, p_position bigint) returns boolean
language sql stable
begin atomic
    select p_position <= coalesce((
               select (e.payload ->> 'toPosition')::bigint from events e
               where e.aggregate_id = p_organization::text and e.aggregate_type = 'retention'
                 and e.organization_id = p_organization
               order by e.sequence desc limit 1), 0)
        or body_is_erased(p_organization, p_webhook);
end;
comment on function body_removal_is_documented is 'Whether the log says that this request is not kept any more.';

-- Deny by default: the server's own role deletes a request only where an event says that it is gone.
create policy bodies_go_as_documented on webhook_bodies as restrictive for delete to hookledger_worker
    using (body_removal_is_documented(organization_id, webhook_id, position));
grant delete on webhook_bodies to hookledger_worker;

-- Whoever was erased holds no address any more, not even by its hash. An address is one user's by the
-- claim's stream. A rebuild comes to the partitions one after the other, and may see that somebody has an
-- address before it sees that the one before was erased.
alter table users alter column email_claim_id drop not null;
comment on column users.email_claim_id is 'Keyed hash of the address, which lies in user_emails; null once the user was erased.';
drop index users_email_claim;
create index users_email_claim on users (email_claim_id) where joined_at is not null;
