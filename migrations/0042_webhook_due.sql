-- The queue of attempts. A row is made in the transaction in which its webhook is read from the log,
-- and goes when the log holds the end. What a row says is memory, not truth: whoever takes one whose
-- holder is gone asks the log how far the webhook came, and the log refuses a second start of an attempt.
create table webhook_due (
    organization_id uuid not null,
    webhook_id uuid not null,
    provider_id uuid not null,
    attempt int not null,
    sequence bigint not null,
    requested boolean not null,
    due_at timestamptz not null,
    pending_since timestamptz,
    holder uuid,
    primary key (organization_id, webhook_id)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
create index webhook_due_by_provider on webhook_due (provider_id, due_at);
create index webhook_due_pending on webhook_due (pending_since) where holder is null and pending_since is not null;
comment on table webhook_due is 'Work queue: webhooks that wait for an attempt, or are in one.';
comment on column webhook_due.organization_id is 'The tenant.';
comment on column webhook_due.webhook_id is 'The webhook.';
comment on column webhook_due.provider_id is 'Whose destination it goes to.';
comment on column webhook_due.attempt is 'The attempt that comes next, or runs.';
comment on column webhook_due.sequence is 'The last event of the webhook''s stream, as far as this row knows.';
comment on column webhook_due.requested is 'A person asked for the attempt: no automatic one follows it.';
comment on column webhook_due.due_at is 'When the attempt is due; with a holder, when its lease ends.';
comment on column webhook_due.pending_since is 'Since when it is pending; null while it waits for a retry.';
comment on column webhook_due.holder is 'The node that works on it.';

create table attempt_responses (
    organization_id uuid not null,
    webhook_id uuid not null,
    attempt_number int not null,
    excerpt bytea not null,
    primary key (organization_id, webhook_id, attempt_number)
);
comment on table attempt_responses is 'What destinations answered. Retention may remove rows; the events keep digest and size.';
comment on column attempt_responses.organization_id is 'The tenant.';
comment on column attempt_responses.webhook_id is 'The webhook.';
comment on column attempt_responses.attempt_number is 'Which attempt.';
comment on column attempt_responses.excerpt is 'The first bytes of the answer''s body, 16 KiB at most.';

create table destination_circuits (
    organization_id uuid not null,
    provider_id uuid not null,
    node uuid not null,
    state text not null,
    failures int not null,
    opened_at timestamptz,
    probe_at timestamptz,
    changed_at timestamptz not null,
    primary key (organization_id, provider_id, node)
);
comment on table destination_circuits is 'Circuits as their nodes last told; one that was never opened is not there.';
comment on column destination_circuits.organization_id is 'The tenant.';
comment on column destination_circuits.provider_id is 'Whose destination.';
comment on column destination_circuits.node is 'The node whose circuit it is.';
comment on column destination_circuits.state is 'closed, open, half_open.';
comment on column destination_circuits.failures is 'Attempts in a row that failed.';
comment on column destination_circuits.opened_at is 'Since when nothing is sent.';
comment on column destination_circuits.probe_at is 'When the next single attempt is let through.';
comment on column destination_circuits.changed_at is 'When the node told.';

create table delivery_nodes (
    node uuid primary key,
    alive_at timestamptz not null
) with (fillfactor = 50);
comment on table delivery_nodes is 'Nodes that deliver. What a node held that has not told for a while is taken by others.';
comment on column delivery_nodes.node is 'A running node; a new one at each start.';
comment on column delivery_nodes.alive_at is 'When it last told.';
grant select, insert, update, delete on delivery_nodes to hookledger_worker;

select keep_tenants_apart(name::regclass)
from unnest(array['webhook_due', 'attempt_responses', 'destination_circuits']) as name;
grant select, insert, update, delete on webhook_due, attempt_responses, destination_circuits to hookledger_worker;
grant select on webhook_due, attempt_responses, destination_circuits to hookledger_runtime;
