-- What cannot be delivered for a reason that a person can end is held: it stays in the queue, says why,
-- and is not looked at before the reason is gone.
alter table webhook_due add column held text
    check (held in ('destination_removed', 'provider_deleted', 'provider_disabled', 'organization_disabled'));
create index webhook_due_held on webhook_due (provider_id) where held is not null;
comment on column webhook_due.held is 'Why it cannot be delivered at present; due_at is infinite then.';
comment on column webhook_due.pending_since is 'Since when a worker could have taken it; null while it waits for a retry or is held.';
-- What waits too long is found by its destination now.
drop index webhook_due_pending;

create table destination_busy (
    organization_id uuid not null,
    provider_id uuid not null,
    node uuid not null,
    reason text not null check (reason in ('concurrency', 'circuit_open')),
    busy_at timestamptz not null,
    primary key (organization_id, provider_id, node)
) with (fillfactor = 50);
comment on table destination_busy is 'When a node last could send no more to a destination, and why. Waiting for that is no failure.';
comment on column destination_busy.organization_id is 'The tenant.';
comment on column destination_busy.provider_id is 'Whose destination.';
comment on column destination_busy.node is 'The node that could send no more.';
comment on column destination_busy.reason is 'concurrency, circuit_open.';
comment on column destination_busy.busy_at is 'When that was so last.';
select keep_tenants_apart('destination_busy');
grant select, insert, update, delete on destination_busy to hookledger_worker;
grant select on destination_busy to hookledger_runtime;
