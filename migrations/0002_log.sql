-- functions: keep_tenants_apart, refuse_rewriting_history

-- The log is the only source of truth. Rows are inserted and read, never changed.
create table events (
    partition int not null,
    position bigint not null,
    -- "C": these are compared byte by byte on every insert, and belong to no language.
    aggregate_type text collate "C" not null,
    aggregate_id text collate "C" not null,
    sequence bigint not null,
    event_type text collate "C" not null,
    event_version text collate "C" not null,
    payload json not null,
    metadata json not null,
    organization_id uuid not null,
    recorded_at timestamptz not null,
    -- The ID comes first: it is what differs, and every insert descends this index by comparing.
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

-- `Scope::Administrative`: what people and operators did is a sliver of the log, and its followers read this index.
create index events_administrative on events (partition, position)
    where aggregate_type <> 'webhook' or event_type = 'webhook.retry_requested';
-- `Reader::unverified`: the few webhooks that were accepted before they could be verified.
create index events_unverified on events (recorded_at, partition, position)
    where event_type = 'webhook.received_unverified';

create trigger events_are_immutable
    before update or delete or truncate on events
    for each statement execute function refuse_rewriting_history();
select keep_tenants_apart('events');
grant select, insert on events to hookledger_worker;
grant select on events to hookledger_runtime;

-- The head of a partition is its last event, and appends to it take turns by an advisory lock (`lock_heads`). A row of
-- its own would be updated by every flush, and under a long snapshot its dead versions would slow each flush down.
-- The view reads as whoever asks: row-level security holds for the owner, too.
create view log_heads with (security_invoker = true) as
select p.partition, coalesce(e.position, 0) as position, coalesce(e.recorded_at, '-infinity') as recorded_at
from generate_series(0, 15) as p (partition)
left join lateral (
    select x.position, x.recorded_at from events x
    where x.partition = p.partition order by x.position desc limit 1) e on true;
comment on view log_heads is 'The last event of each partition.';
comment on column log_heads.partition is 'One of 16.';
comment on column log_heads.position is 'Position of the last event, 0 in an empty partition.';
comment on column log_heads.recorded_at is 'Time of the last event; the next is not earlier.';
grant select on log_heads to hookledger_worker;

-- A flush records its outcome under an ID, in its own transaction. One whose answer was lost can be sent again: it is
-- answered as the first time, or appended now.
create table flushes (
    id uuid not null,
    recorded_at timestamptz not null,
    is_checked boolean not null,
    positions bigint[] not null,
    over_limit integer[] not null,
    organizations uuid[] not null,
    months date[] not null,
    used bigint[] not null,
    primary key (id)
);
comment on table flushes is 'What became of the flushes of the last minutes.';
comment on column flushes.id is 'Made by the node, once for all tries.';
comment on column flushes.recorded_at is 'Clock of the database under the lock.';
comment on column flushes.is_checked is 'Whether each unit was checked for conflicts.';
comment on column flushes.positions is 'Checked: the last position of each unit, null for a conflict. Otherwise: the head that each partition had before.';
comment on column flushes.over_limit is 'Numbers of the units, from 0, that a monthly limit left out.';
comment on column flushes.organizations is 'Those with a limit.';
comment on column flushes.months is 'In which month each of them was counted, by its first day.';
comment on column flushes.used is 'What each of them has used of it now; null where it cannot be counted yet.';
-- `remove_old_flushes` removes rows in this order.
create index flushes_recorded_at on flushes (recorded_at);
grant select, insert, delete on flushes to hookledger_worker;

-- Nodes note here that the log lost its end: the database was replaced by one with fewer events, or with others. It
-- is told until somebody declares the loss.
create table log_tails_lost (
    partition int not null,
    known bigint not null,
    found bigint not null,
    timeline bigint not null,
    noticed_at timestamptz not null default now()
);
comment on table log_tails_lost is 'Partitions of which a node knew more events than the database has, or others.';
comment on column log_tails_lost.partition is 'One of 16.';
comment on column log_tails_lost.known is 'The position up to which the node had known it.';
comment on column log_tails_lost.found is 'Up to where it went when that was noticed.';
comment on column log_tails_lost.timeline is 'Timeline of the database in which it was noticed.';
comment on column log_tails_lost.noticed_at is 'When it was noticed.';
-- `log::tail::noticed_since` reads the newest.
create index log_tails_lost_newest on log_tails_lost (noticed_at);
create trigger log_tails_lost_are_immutable
    before update or delete or truncate on log_tails_lost
    for each statement execute function refuse_rewriting_history();
grant select, insert on log_tails_lost to hookledger_worker;
