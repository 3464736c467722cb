-- How far each follower of the log has come. A projection's rows and its checkpoint change in one
-- transaction; the epoch fences off a follower whose lease was taken over.
create table followers (
    name text primary key,
    epoch bigint not null default 0,
    owner uuid,
    lease_until timestamptz not null default '-infinity'
) with (fillfactor = 50);
comment on table followers is 'Who follows the log under which name.';
comment on column followers.name is 'Name of the projection or worker.';
comment on column followers.epoch is 'Grows with every change of owner.';
comment on column followers.owner is 'The node that follows now.';
comment on column followers.lease_until is 'From then on any node may take over.';

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

grant select, insert, update on followers, follower_checkpoints to hookledger_runtime;
