-- functions: body_is_erased, body_removal_is_documented

-- Requests and answers as they came: the log keeps their digests, and they may be removed.
-- Inline up to a page: a body of 2 KB in the TOAST table and its index made an append a third slower. Found by
-- position, which comes in order: with an ID, every append would touch another leaf of the index.
create table webhook_bodies (
    organization_id uuid not null,
    position bigint not null,
    webhook_id uuid not null,
    headers bytea not null,
    body bytea not null,
    primary key (organization_id, position)
) with (toast_tuple_target  =  8160);
comment on table webhook_bodies is 'Raw requests. Retention may remove rows; the events keep digest and size.';
comment on column webhook_bodies.organization_id is 'The tenant.';
comment on column webhook_bodies.position is 'Position of the webhook''s first event, in its organization''s partition.';
comment on column webhook_bodies.webhook_id is 'The webhook, accepted or rejected; found by way of its first event.';
comment on column webhook_bodies.headers is 'name:value lines as received, without authorization and cookie.';
comment on column webhook_bodies.body is 'The bytes as received.';
-- A server that was built without lz4 keeps its default compression.
do $$
begin
    alter table webhook_bodies alter column headers set compression lz4;
    alter table webhook_bodies alter column body set compression lz4;
exception
    when feature_not_supported or invalid_parameter_value then null;
end
$$;
select keep_tenants_apart('webhook_bodies');
-- The server's own role deletes a request only where an event says that it is gone.
create policy bodies_go_as_documented on webhook_bodies as restrictive for delete to hookledger_worker
    using (body_removal_is_documented(organization_id, webhook_id, position));
grant select, insert, delete on webhook_bodies to hookledger_worker;
grant select on webhook_bodies to hookledger_runtime;

create table attempt_responses (
    organization_id uuid not null,
    webhook_id uuid not null,
    delivery_id uuid not null,
    attempt_number int not null,
    excerpt bytea not null,
    primary key (organization_id, webhook_id, delivery_id, attempt_number)
);
comment on table attempt_responses is 'What destinations answered. Retention may remove rows; the events keep digest and size.';
comment on column attempt_responses.organization_id is 'The tenant.';
comment on column attempt_responses.webhook_id is 'The webhook.';
comment on column attempt_responses.delivery_id is 'Which of its deliveries.';
comment on column attempt_responses.attempt_number is 'Which attempt.';
comment on column attempt_responses.excerpt is 'The first bytes of the answer''s body, 16 KiB at most.';
select keep_tenants_apart('attempt_responses');
grant select, insert, update, delete on attempt_responses to hookledger_worker;
grant select on attempt_responses to hookledger_runtime;
