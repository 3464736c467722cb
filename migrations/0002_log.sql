-- functions: keep_tenants_apart, refuse_rewriting_history

-- The log is the only source of truth. Rows are inserted and read, never changed.
-- A row is a commit: the consecutive events that one unit appends to one stream. Nobody ever sees a part of it, so a
-- stream goes on where its last commit ends, and two writers that saw the same version meet at `commits_stream`.
create table commits (
    position bigint not null,
    recorded_at timestamptz not null,
    stream_id uuid not null,
    organization_id uuid not null,
    partition int not null check (partition between 0 and 15),
    first_sequence int not null check (first_sequence > 0),
    -- Readers look back by as much to find the commit that a position is in.
    events smallint not null check (events between 1 and 100),
    aggregate_type text collate "C" not null,
    metadata text not null,
    data text not null,
    constraint commits_position primary key (partition, position),
    -- The ID comes first: it is what differs, and every insert descends this index by comparing.
    constraint commits_stream unique (stream_id, aggregate_type, first_sequence, partition)
);
comment on table commits is 'Append-only log of everything that happened; the view events has a row for each event.';
comment on column commits.position is 'Of the first event: 1, 2, 3… within the partition, in commit order, without gaps.';
comment on column commits.recorded_at is 'Clock of the database under the lock; never goes backwards in a partition.';
comment on column commits.stream_id is 'Stream within its kind.';
comment on column commits.organization_id is 'The tenant; the nil UUID is the platform itself.';
comment on column commits.partition is 'One of 16; an organization is always in the same one.';
comment on column commits.first_sequence is 'Of the first event: 1, 2, 3… within the stream, without gaps.';
comment on column commits.events is 'How many events.';
comment on column commits.aggregate_type is 'Kind of stream: organization, user, email_claim, provider, destination, route, webhook, delivery.';
comment on column commits.metadata is 'Who caused it and from where: a flat object of strings. Of all events that have none of their own.';
comment on column commits.data is
    'A line for each event: type, version, payload, and metadata where it differs, separated by tabs. JSON as it was written.';

-- `events_of`: the log of an organization that is quiet in a busy partition.
create index commits_organization on commits (organization_id, position);
-- `Scope::Administrative`: what people and operators did is a sliver of the log, and its followers read this index.
create index commits_administrative on commits (partition, position)
    where aggregate_type not in ('webhook', 'delivery') or starts_with(data, 'delivery.retry_requested')
       or starts_with(data, 'delivery.cancelled');
-- `Reader::unverified`: the few webhooks that were accepted before they could be verified.
create index commits_unverified on commits (recorded_at, partition, position)
    where starts_with(data, 'webhook.received_unverified');

-- A server that was built without lz4 keeps its default compression.
do $$
begin
    alter table commits alter column data set compression lz4;
exception
    when feature_not_supported or invalid_parameter_value then null;
end
$$;
create trigger commits_are_immutable
    before update or delete or truncate on commits
    for each statement execute function refuse_rewriting_history();
select keep_tenants_apart('commits');
grant select, insert on commits to hookledger_worker;
grant select on commits to hookledger_runtime;

-- The log as postgres-es and auditors read it. It reads as whoever asks: row-level security holds for the owner, too.
-- `stream_id`, `first_sequence` and `first_position` are columns of commits and have its indexes; `aggregate_id`, `sequence` and
-- `position` are computed and have none.
create view events with (security_invoker = true) as
select c.partition, c.position + e.number - 1 as position, c.aggregate_type, c.stream_id::text as aggregate_id,
       c.first_sequence + e.number - 1 as sequence,
       split_part(e.line, E'\t', 1) as event_type, split_part(e.line, E'\t', 2) as event_version,
       split_part(e.line, E'\t', 3)::json as payload,
       coalesce(nullif(split_part(e.line, E'\t', 4), ''), c.metadata)::json as metadata,
       c.organization_id, c.recorded_at, c.stream_id, c.first_sequence, c.position as first_position
from commits c cross join lateral unnest(string_to_array(c.data, E'\n')) with ordinality as e (line, number);
comment on view events is 'Everything that happened, a row for each event.';
comment on column events.partition is 'One of 16; an organization is always in the same one.';
comment on column events.position is '1, 2, 3… within the partition, in commit order, without gaps.';
comment on column events.aggregate_type is 'Kind of stream: organization, user, email_claim, provider, destination, route, webhook, delivery.';
comment on column events.aggregate_id is 'Stream within its kind, a UUID in text, as postgres-es reads it.';
comment on column events.sequence is '1, 2, 3… within the stream.';
comment on column events.event_type is 'What happened, like webhook.received.';
comment on column events.event_version is 'Version of the fields in the payload, a whole number.';
comment on column events.payload is 'The fields of the event. json, not jsonb: kept as written.';
comment on column events.metadata is 'Who caused it and from where: a flat object of strings.';
comment on column events.organization_id is 'The tenant; the nil UUID is the platform itself.';
comment on column events.recorded_at is 'When its commit was recorded.';
comment on column events.stream_id is 'The aggregate ID as a UUID; looked up by an index.';
comment on column events.first_sequence is 'Sequence of the first event of its commit; ordered by an index with the stream.';
comment on column events.first_position is 'Position of the first event of its commit; looked up by an index with the partition.';
grant select on events to hookledger_worker, hookledger_runtime;

-- The head of a partition is its last event, and appends to it take turns by an advisory lock (`lock_heads`). A row of
-- its own would be updated by every flush, and under a long snapshot its dead versions would slow each flush down.
-- The view reads as whoever asks: row-level security holds for the owner, too.
create view log_heads with (security_invoker = true) as
select p.partition, coalesce(e.position, 0) as position, coalesce(e.recorded_at, '-infinity') as recorded_at
from generate_series(0, 15) as p (partition)
left join lateral (
    select x.position + x.events - 1 as position, x.recorded_at from commits x
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
