-- Whether nothing got lost on the way from the log to the read models: the log's count of each organization's webhooks,
-- against webhook_balances at the same place in the log.
create table conservation (
    organization_id uuid not null,
    partition int not null,
    position bigint not null,
    received bigint not null,
    outcomes bigint not null,
    duplicates bigint not null,
    pending bigint not null,
    processing bigint not null,
    succeeded bigint not null,
    failed bigint not null,
    dead_lettered bigint not null,
    cancelled bigint not null,
    rejected bigint not null,
    difference bigint not null default 0,
    differences text[] not null default '{}',
    webhook_ids uuid[] not null default '{}',
    checked_at timestamptz,
    mismatch_since timestamptz,
    primary key (organization_id)
) with (fillfactor = 50);
comment on table conservation is 'Each organization''s webhooks by the log, and whether the read models say the same.';
comment on column conservation.organization_id is 'The tenant.';
comment on column conservation.partition is 'Partition of its events.';
comment on column conservation.position is 'Counted and compared up to here.';
comment on column conservation.received is 'Webhooks accepted, duplicates apart.';
comment on column conservation.outcomes is 'What has to come of them: one for each delivery, and one for a webhook without deliveries.';
comment on column conservation.duplicates is 'Further deliveries of webhooks that were there already.';
comment on column conservation.pending is 'By the log: they wait for an attempt.';
comment on column conservation.processing is 'By the log: an attempt runs.';
comment on column conservation.succeeded is 'By the log: an attempt succeeded.';
comment on column conservation.failed is 'By the log: they wait for a retry.';
comment on column conservation.dead_lettered is 'By the log: they wait for a person.';
comment on column conservation.cancelled is 'By the log: a person cancelled them.';
comment on column conservation.rejected is 'By the log: they were refused.';
comment on column conservation.difference is 'How many webhooks are not where the log says; 0 is as it should be.';
comment on column conservation.differences is 'What differs, a sentence each.';
comment on column conservation.webhook_ids is 'The first webhooks that were found to differ.';
comment on column conservation.checked_at is 'When it was last compared.';
comment on column conservation.mismatch_since is 'Since when something differs.';
-- The organizations that differ.
create index conservation_mismatches on conservation (mismatch_since) where mismatch_since is not null;
select keep_tenants_apart('conservation');
grant select, insert, update, delete on conservation to hookledger_worker;
grant select on conservation to hookledger_runtime;
