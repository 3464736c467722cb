-- A webhook's way from pending to success changes its row in place. An index that has the status in
-- its condition made each such change a new entry in every index of the table, which took a third of
-- the database's time under load. Where a webhook stands is found by other columns now: those that
-- are open are listed in a small table, those that failed are known by columns that a success leaves
-- alone.
drop index webhook_logs_failed;
drop index webhook_logs_open;
alter table webhook_logs set (fillfactor = 60);

create index webhook_logs_failed on webhook_logs (organization_id, received_at desc, position desc)
    where dead_lettered_at is not null or next_retry_at is not null or not signature_valid;

create table webhook_open (
    organization_id uuid not null,
    received_at timestamptz not null,
    position bigint not null,
    primary key (organization_id, received_at, position)
);
comment on table webhook_open is 'Projection: the rows of webhook_logs that are pending or processing.';
comment on column webhook_open.organization_id is 'The tenant.';
comment on column webhook_open.received_at is 'As in webhook_logs.';
comment on column webhook_open.position is 'As in webhook_logs.';

insert into webhook_open (organization_id, received_at, position)
select organization_id, received_at, position from webhook_logs where status in ('pending', 'processing');

grant select, insert, update, delete on webhook_open to hookledger_runtime;
