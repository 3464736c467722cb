-- How far each follower of the log has come. A projection's rows and its checkpoint change in one transaction; the
-- epoch fences off a follower whose lease was taken over.
create table followers (
    name text not null,
    epoch bigint not null default 0,
    owner uuid,
    lease_until timestamptz not null default '-infinity',
    primary key (name)
) with (fillfactor = 50);
comment on table followers is 'Who follows the log under which name.';
comment on column followers.name is 'Name of the projection or worker.';
comment on column followers.epoch is 'Grows with every change of owner.';
comment on column followers.owner is 'The node that follows now.';
comment on column followers.lease_until is 'From then on any node may take over.';
grant select, insert, update on followers to hookledger_worker;

create table follower_checkpoints (
    name text not null,
    partition int not null,
    position bigint not null,
    stopped_by text,
    primary key (name, partition)
) with (fillfactor = 50);
comment on table follower_checkpoints is 'Last position of each partition that a follower has dealt with.';
comment on column follower_checkpoints.name is 'Name of the projection or worker.';
comment on column follower_checkpoints.partition is 'Partition of the log.';
comment on column follower_checkpoints.position is 'Everything up to here is applied.';
comment on column follower_checkpoints.stopped_by is 'Why it does not go on, where it met an event that it cannot apply.';
grant select, insert, update on follower_checkpoints to hookledger_worker;

create table projection_versions (
    name text not null,
    version int not null,
    switched_at timestamptz not null,
    primary key (name)
);
comment on table projection_versions is 'Which rebuild of each projection is live; one that was never rebuilt is not there.';
comment on column projection_versions.name is 'Name of the projection.';
comment on column projection_versions.version is '2 after the first rebuild, and so on.';
comment on column projection_versions.switched_at is 'Since when.';
grant select on projection_versions to hookledger_worker;
