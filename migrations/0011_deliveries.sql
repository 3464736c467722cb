-- functions: note_when_due_was_set

-- The queue of attempts. A row is made in the transaction in which its delivery is read from the log, and goes when the
-- log holds the end. It is memory, not truth: a node that takes one whose holder is gone asks the log, and the log
-- refuses a second start of an attempt. Its key finds a delivery's row.
create table delivery_due (
    organization_id uuid not null,
    delivery_id uuid not null,
    webhook_id uuid not null,
    route_id uuid not null,
    destination_id uuid not null,
    attempt int not null,
    sequence bigint not null,
    requested boolean not null,
    due_at timestamptz not null,
    due_set_at timestamptz,
    pending_since timestamptz,
    holder uuid,
    held text check (held in ('destination_removed', 'route_removed', 'route_disabled', 'provider_deleted',
                              'provider_disabled', 'organization_disabled', 'secret_unreadable')),
    primary key (organization_id, delivery_id)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
comment on table delivery_due is 'Work queue: deliveries that wait for an attempt, or are in one.';
comment on column delivery_due.organization_id is 'The tenant.';
comment on column delivery_due.delivery_id is 'The delivery.';
comment on column delivery_due.webhook_id is 'What is delivered.';
comment on column delivery_due.route_id is 'The route that it matched.';
comment on column delivery_due.destination_id is 'Where it goes.';
comment on column delivery_due.attempt is 'The attempt that comes next, or runs.';
comment on column delivery_due.sequence is 'The last event of the delivery''s stream, as far as this row knows.';
comment on column delivery_due.requested is 'A person asked for the attempt: no automatic one follows it.';
comment on column delivery_due.due_at is 'When the attempt is due; with a holder, when its lease ends.';
comment on column delivery_due.due_set_at is 'What the clock said when due_at was set.';
comment on column delivery_due.pending_since is 'Since when a worker could have taken it; null while it waits for a retry or is held.';
comment on column delivery_due.holder is 'The node that works on it.';
comment on column delivery_due.held is 'Why it cannot be delivered at present; due_at is infinite then.';
-- `Queue::claim` and `claim_overdue`: what is due to each destination. Destinations that have rows are found by skipping
-- from one to the next.
create index delivery_due_by_destination on delivery_due (destination_id, due_at);
-- `Queue::held` and `let_go`.
create index delivery_due_held on delivery_due (destination_id, route_id) where held is not null;
-- When the database's clock jumps ahead and back, a due time that was set by the clock that was ahead is known by
-- `due_set_at`. A trigger notes it, since every statement on the queue sets due times.
create trigger delivery_due_set before insert or update of due_at on delivery_due
    for each row execute function note_when_due_was_set();
select keep_tenants_apart('delivery_due');
grant select, insert, update, delete on delivery_due to hookledger_worker;
grant select on delivery_due to hookledger_runtime;

create table delivery_nodes (
    node uuid not null,
    alive_at timestamptz not null,
    primary key (node)
) with (fillfactor = 50);
comment on table delivery_nodes is 'Nodes that deliver. What a node held that has not told for a while is taken by others.';
comment on column delivery_nodes.node is 'A running node; a new one at each start.';
comment on column delivery_nodes.alive_at is 'When it last told.';
grant select, insert, update, delete on delivery_nodes to hookledger_worker;
grant select on delivery_nodes to hookledger_runtime;

create table destination_circuits (
    organization_id uuid not null,
    destination_id uuid not null,
    node uuid not null,
    state text not null,
    failures int not null,
    opened_at timestamptz,
    probe_at timestamptz,
    changed_at timestamptz not null,
    primary key (organization_id, destination_id, node)
);
comment on table destination_circuits is 'Circuits as their nodes last told; one that was never opened is not there.';
comment on column destination_circuits.organization_id is 'The tenant.';
comment on column destination_circuits.destination_id is 'The destination.';
comment on column destination_circuits.node is 'The node whose circuit it is.';
comment on column destination_circuits.state is 'closed, open, half_open.';
comment on column destination_circuits.failures is 'Attempts in a row that failed.';
comment on column destination_circuits.opened_at is 'Since when nothing is sent.';
comment on column destination_circuits.probe_at is 'When the next single attempt is let through.';
comment on column destination_circuits.changed_at is 'When the node told.';
select keep_tenants_apart('destination_circuits');
grant select, insert, update, delete on destination_circuits to hookledger_worker;
grant select on destination_circuits to hookledger_runtime;

create table destination_busy (
    organization_id uuid not null,
    destination_id uuid not null,
    node uuid not null,
    reason text not null check (reason in ('concurrency', 'circuit_open')),
    busy_at timestamptz not null,
    primary key (organization_id, destination_id, node)
) with (fillfactor = 50);
comment on table destination_busy is 'When a node last could send no more to a destination, and why. Waiting for that is no failure.';
comment on column destination_busy.organization_id is 'The tenant.';
comment on column destination_busy.destination_id is 'The destination.';
comment on column destination_busy.node is 'The node that could send no more.';
comment on column destination_busy.reason is 'concurrency, circuit_open.';
comment on column destination_busy.busy_at is 'When that was so last.';
select keep_tenants_apart('destination_busy');
grant select, insert, update, delete on destination_busy to hookledger_worker;
grant select on destination_busy to hookledger_runtime;
