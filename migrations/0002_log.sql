-- The log: the only source of truth. Rows are inserted and read, never changed.
create table events (
    partition int not null,
    position bigint not null,
    -- "C": these are compared byte by byte on every insert, and mean nothing to any language.
    aggregate_type text collate "C" not null,
    aggregate_id text collate "C" not null,
    sequence bigint not null,
    event_type text collate "C" not null,
    event_version text collate "C" not null,
    payload json not null,
    metadata json not null,
    organization_id uuid not null,
    recorded_at timestamptz not null,
    -- The id comes first: it is what differs, and every insert descends this index by comparing.
    constraint events_stream primary key (aggregate_id, aggregate_type, sequence, partition),
    constraint events_position unique (partition, position)
);
comment on table events is 'Append-only log of everything that happened.';
comment on column events.partition is 'One of 16; an organization is always in the same one.';
comment on column events.position is '1, 2, 3… within the partition, in commit order, without gaps.';
comment on column events.aggregate_type is 'Kind of stream: organization, user, email_claim, provider, webhook.';
comment on column events.aggregate_id is 'Stream within its kind, a UUID in text, as postgres-es reads it.';
comment on column events.sequence is '1, 2, 3… within the stream.';
comment on column events.event_type is 'What happened, like webhook.received.';
comment on column events.event_version is 'Version of the fields in the payload, a whole number.';
comment on column events.payload is 'The fields of the event. json, not jsonb: kept as written.';
comment on column events.metadata is 'Who caused it and from where: a flat object of strings.';
comment on column events.organization_id is 'The tenant; the nil UUID is the platform itself.';
comment on column events.recorded_at is 'Clock of the database under the lock; never goes backwards in a partition.';

-- What people and operators did is a sliver of the log: those who follow only that read this.
create index events_administrative on events (partition, position)
    where aggregate_type <> 'webhook' or event_type = 'webhook.retry_requested';

create table log_heads (
    partition int primary key,
    position bigint not null default 0,
    recorded_at timestamptz not null default '-infinity'
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
comment on table log_heads is 'Last position of each partition; its row lock serializes appends to it.';
comment on column log_heads.partition is 'One of 16.';
comment on column log_heads.position is 'Position of the last event, 0 in an empty partition.';
comment on column log_heads.recorded_at is 'Time of the last event, so that the next is not earlier.';
insert into log_heads (partition) select generate_series(0, 15);

create table webhook_bodies (
    organization_id uuid not null,
    webhook_id uuid not null,
    headers bytea not null,
    body bytea not null,
    primary key (webhook_id, organization_id)
);
comment on table webhook_bodies is 'Raw requests. Retention may remove rows; the events keep digest and size.';
comment on column webhook_bodies.organization_id is 'The tenant.';
comment on column webhook_bodies.webhook_id is 'The webhook, accepted or rejected.';
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

create function refuse_rewriting_history() returns trigger
language plpgsql as $$
begin
    raise exception 'the log is append-only: % on % is refused', tg_op, tg_table_name
        using errcode = 'restrict_violation';
end
$$;

create trigger events_are_immutable
    before update or delete or truncate on events
    for each statement execute function refuse_rewriting_history();

grant select, insert on events to hookledger_runtime;
grant select, update (position, recorded_at) on log_heads to hookledger_runtime;
grant select, insert on webhook_bodies to hookledger_runtime;
