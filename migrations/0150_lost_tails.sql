-- What nodes noticed of a log that lost its end: the database was replaced by one with fewer events, or
-- with others. Kept so that it is told until somebody declares the loss.
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
create index log_tails_lost_newest on log_tails_lost (noticed_at);

create trigger log_tails_lost_are_immutable
    before update or delete or truncate on log_tails_lost
    for each statement execute function refuse_rewriting_history();
grant select, insert on log_tails_lost to hookledger_worker;
