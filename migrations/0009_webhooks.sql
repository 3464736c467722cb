-- functions: balance_webhooks, balance_deliveries

-- Read models of webhooks and their attempts. Derived: they can be dropped and rebuilt.
-- A webhook's way from pending to success changes its row in place, so no index has the status in its condition: each
-- such change would be a new entry in every index of the table.
create table webhook_logs (
    organization_id uuid not null,
    webhook_id uuid not null,
    position bigint not null,
    applied_position bigint not null,
    provider_id uuid not null,
    provider_event_id text,
    event_type text,
    is_test boolean not null default false,
    body_sha256 text collate "C" not null,
    body_size bigint not null,
    content_type text,
    signature_received text,
    signature_valid boolean not null,
    rejection text collate "C",
    status text collate "C" not null,
    retry_count int not null,
    error_message text,
    received_at timestamptz not null,
    updated_at timestamptz not null,
    processed_at timestamptz,
    next_retry_at timestamptz,
    dead_lettered_at timestamptz,
    duplicate_count int not null,
    body_differs boolean not null,
    replay_key uuid,
    suspected_replay boolean not null default false,
    deliveries int,
    primary key (organization_id, webhook_id)
) with (fillfactor = 60);
comment on table webhook_logs is 'Projection: one row per webhook, accepted or rejected.';
comment on column webhook_logs.organization_id is 'The tenant.';
comment on column webhook_logs.webhook_id is 'The webhook.';
comment on column webhook_logs.position is 'Position of its first event: the order of lists.';
comment on column webhook_logs.applied_position is 'Position of its last event: replay changes nothing.';
comment on column webhook_logs.provider_id is 'Who sent it.';
comment on column webhook_logs.provider_event_id is 'The provider''s own id of the event.';
comment on column webhook_logs.event_type is 'The provider''s own name for it.';
comment on column webhook_logs.is_test is 'A person sent it to try the provider.';
comment on column webhook_logs.body_sha256 is 'Hex digest of the raw body.';
comment on column webhook_logs.body_size is 'Bytes of the raw body.';
comment on column webhook_logs.content_type is 'As received.';
comment on column webhook_logs.signature_received is 'The signature header as it came.';
comment on column webhook_logs.signature_valid is 'False for rejections.';
comment on column webhook_logs.rejection is 'Code of why it was refused, like signature_invalid; null for accepted ones.';
comment on column webhook_logs.status is 'pending, processing, success, failed: what its deliveries have in common.';
comment on column webhook_logs.deliveries is 'How many routes it matched; null before it is routed.';
comment on column webhook_logs.retry_count is '0 to 3: automatic retries so far, at most of its deliveries.';
comment on column webhook_logs.error_message is 'What went wrong last.';
comment on column webhook_logs.received_at is 'When it was recorded, just before the answer.';
comment on column webhook_logs.updated_at is 'Time of its last event.';
comment on column webhook_logs.processed_at is 'When its last delivery succeeded.';
comment on column webhook_logs.next_retry_at is 'When the next attempt is due.';
comment on column webhook_logs.dead_lettered_at is 'When it was given up, until a person retries it.';
comment on column webhook_logs.duplicate_count is 'Further deliveries of the same event.';
comment on column webhook_logs.body_differs is 'A duplicate came with another body.';
comment on column webhook_logs.replay_key is 'First half of the body''s digest, where the provider signs neither ids nor times; null elsewhere.';
comment on column webhook_logs.suspected_replay is 'Its body came before, under another id that is not signed.';
-- `received_at` is the time of recording, which orders as positions do. `webhook_logs::list` and `candidates`, newest
-- first or in a range of time; `histogram::count`; the join from `webhook_open`.
create index webhook_logs_newest on webhook_logs (organization_id, received_at desc, position desc);
-- The same of one provider; `summaries::previous_of_type`; when a provider last sent something (`summaries::health`).
create index webhook_logs_provider on webhook_logs (organization_id, provider_id, received_at desc, position desc);
-- `webhook_logs::by_identity`.
create index webhook_logs_event_id on webhook_logs (organization_id, provider_event_id);
-- `webhook_logs::FAILED`: the list of failed ones, `retryable`, `summaries::dead_letter_groups`, the ranking of
-- errors. By columns that a success leaves alone.
create index webhook_logs_failed on webhook_logs (organization_id, received_at desc, position desc)
    where dead_lettered_at is not null or next_retry_at is not null or not signature_valid;
-- Whether a body came before (`webhook_logs::write::make`), for providers that sign neither IDs nor times.
create index webhook_logs_replay on webhook_logs (organization_id, provider_id, replay_key)
    where replay_key is not null;
-- The list of suspicious ones (`conditions::FLAGGED`).
create index webhook_logs_flagged on webhook_logs (organization_id, received_at desc, position desc)
    where suspected_replay or body_differs or rejection = 'transmission_replayed';
-- The list of tests (`WebhookFilter::is_test`).
create index webhook_logs_tests on webhook_logs (organization_id, received_at desc, position desc) where is_test;
select keep_tenants_apart('webhook_logs');
grant select, insert, update, delete on webhook_logs to hookledger_worker;
grant select on webhook_logs to hookledger_runtime;

-- Its key is the order of `unfinished::open`, and joins `webhook_logs_newest`.
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
select keep_tenants_apart('webhook_open');
grant select, insert, update, delete on webhook_open to hookledger_worker;
grant select on webhook_open to hookledger_runtime;

create table deliveries (
    organization_id uuid not null,
    delivery_id uuid not null,
    webhook_id uuid not null,
    route_id uuid not null,
    route_version int not null,
    destination_id uuid not null,
    position bigint not null,
    applied_position bigint not null,
    phase text collate "C" not null,
    attempt int not null,
    error_message text,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    processed_at timestamptz,
    next_retry_at timestamptz,
    dead_lettered_at timestamptz,
    primary key (organization_id, delivery_id)
) with (fillfactor = 60);
comment on table deliveries is 'Projection: one row per webhook and route that it matched.';
comment on column deliveries.organization_id is 'The tenant.';
comment on column deliveries.delivery_id is 'Derived from webhook and route.';
comment on column deliveries.webhook_id is 'What is delivered.';
comment on column deliveries.route_id is 'The route that it matched.';
comment on column deliveries.route_version is 'The version of the route that decided.';
comment on column deliveries.destination_id is 'Where it goes.';
comment on column deliveries.position is 'Position of the event that routed its webhook.';
comment on column deliveries.applied_position is 'Position of its last event: replay changes nothing.';
comment on column deliveries.phase is 'pending, processing, succeeded, awaiting_retry, dead_lettered, cancelled.';
comment on column deliveries.attempt is 'The running or last attempt; 0 before the first.';
comment on column deliveries.error_message is 'What went wrong last.';
comment on column deliveries.created_at is 'When its webhook was routed.';
comment on column deliveries.updated_at is 'Time of its last event.';
comment on column deliveries.processed_at is 'When it succeeded.';
comment on column deliveries.next_retry_at is 'When the next attempt is due.';
comment on column deliveries.dead_lettered_at is 'When it was given up, until a person retries it.';
-- The deliveries of a webhook: its page, and the fold of its status.
create index deliveries_of_webhook on deliveries (organization_id, webhook_id);
-- `unfinished::overdue` and `oldest`: those that wait for a retry.
create index deliveries_waiting on deliveries (next_retry_at, delivery_id) where next_retry_at is not null;
select keep_tenants_apart('deliveries');
grant select, insert, update, delete on deliveries to hookledger_worker;
grant select on deliveries to hookledger_runtime;

-- Its key finds the attempts of a webhook (`webhook_retries::of_webhooks`).
create table webhook_retries (
    organization_id uuid not null,
    webhook_id uuid not null,
    delivery_id uuid not null,
    attempt_number int not null,
    attempted_at timestamptz not null,
    ended_at timestamptz,
    succeeded boolean,
    status_code int,
    duration_ms bigint,
    error_details text,
    primary key (organization_id, webhook_id, delivery_id, attempt_number)
);
comment on table webhook_retries is 'Projection: every attempt at a delivery, the first included.';
comment on column webhook_retries.organization_id is 'The tenant.';
comment on column webhook_retries.webhook_id is 'The webhook.';
comment on column webhook_retries.delivery_id is 'Which of its deliveries.';
comment on column webhook_retries.attempt_number is '1 is the first try, 2 to 4 are retries 1 to 3.';
comment on column webhook_retries.attempted_at is 'When it began.';
comment on column webhook_retries.ended_at is 'When it ended, while null it runs.';
comment on column webhook_retries.succeeded is 'How it ended.';
comment on column webhook_retries.status_code is 'HTTP status of the destination.';
comment on column webhook_retries.duration_ms is 'Milliseconds.';
comment on column webhook_retries.error_details is 'What went wrong.';
select keep_tenants_apart('webhook_retries');
grant select, insert, update, delete on webhook_retries to hookledger_worker;
grant select on webhook_retries to hookledger_runtime;

create table webhook_counts (
    organization_id uuid not null,
    month date not null,
    accepted bigint not null,
    primary key (organization_id, month)
);
comment on table webhook_counts is 'Projection: accepted webhooks per calendar month, UTC.';
comment on column webhook_counts.organization_id is 'The tenant.';
comment on column webhook_counts.month is 'First day of the month.';
comment on column webhook_counts.accepted is 'Webhooks that were accepted, duplicates apart.';
select keep_tenants_apart('webhook_counts');
grant select, insert, update, delete on webhook_counts to hookledger_worker;
grant select on webhook_counts to hookledger_runtime;

create table provider_secret_uses (
    organization_id uuid not null,
    provider_id uuid not null,
    version int not null,
    last_used_at timestamptz not null,
    primary key (organization_id, provider_id, version)
) with (fillfactor = 50);
comment on table provider_secret_uses is 'Projection: when each secret last verified a webhook.';
comment on column provider_secret_uses.organization_id is 'The tenant.';
comment on column provider_secret_uses.provider_id is 'Whose secret.';
comment on column provider_secret_uses.version is 'Which version.';
comment on column provider_secret_uses.last_used_at is 'Time of the last webhook that it verified.';
select keep_tenants_apart('provider_secret_uses');
grant select, insert, update, delete on provider_secret_uses to hookledger_worker;
grant select on provider_secret_uses to hookledger_runtime;

-- Deliveries, and webhooks without any, by state, counted as they change, also by psql; the log tells otherwise
-- (`conservation`).
-- Counting a million rows each time would be too slow.
create table webhook_balances (
    organization_id uuid not null,
    pending bigint not null default 0,
    processing bigint not null default 0,
    succeeded bigint not null default 0,
    failed bigint not null default 0,
    dead_lettered bigint not null default 0,
    cancelled bigint not null default 0,
    rejected bigint not null default 0,
    primary key (organization_id)
) with (fillfactor = 50);
comment on table webhook_balances is 'Projection: how many deliveries stand where, and webhooks that have none, kept by triggers on both.';
comment on column webhook_balances.organization_id is 'The tenant.';
comment on column webhook_balances.pending is 'They wait for an attempt, or for their signature to be verified.';
comment on column webhook_balances.processing is 'An attempt runs.';
comment on column webhook_balances.succeeded is 'An attempt succeeded, or nothing was to be delivered.';
comment on column webhook_balances.failed is 'They wait for a retry.';
comment on column webhook_balances.dead_lettered is 'They wait for a person.';
comment on column webhook_balances.cancelled is 'A person cancelled them.';
comment on column webhook_balances.rejected is 'They were refused.';
select keep_tenants_apart('webhook_balances');
grant select, insert, update, delete on webhook_balances to hookledger_worker;
grant select on webhook_balances to hookledger_runtime;
create trigger balance_inserted after insert on webhook_logs
    referencing new table as new_rows for each statement execute function balance_webhooks();
create trigger balance_updated after update on webhook_logs
    referencing new table as new_rows old table as old_rows for each statement execute function balance_webhooks();
create trigger balance_deleted after delete on webhook_logs
    referencing old table as old_rows for each statement execute function balance_webhooks();
create trigger balance_truncated after truncate on webhook_logs
    for each statement execute function balance_webhooks();

create trigger balance_inserted after insert on deliveries
    referencing new table as new_rows for each statement execute function balance_deliveries();
create trigger balance_updated after update on deliveries
    referencing new table as new_rows old table as old_rows for each statement execute function balance_deliveries();
create trigger balance_deleted after delete on deliveries
    referencing old table as old_rows for each statement execute function balance_deliveries();
create trigger balance_truncated after truncate on deliveries
    for each statement execute function balance_deliveries();

create table webhook_analytics (
    organization_id uuid not null,
    minute timestamptz not null,
    provider_id uuid not null,
    received bigint not null,
    duplicates bigint not null,
    rejected bigint not null,
    succeeded bigint not null,
    failed bigint not null,
    retried bigint not null default 0,
    dead_lettered bigint not null,
    latency bigint[] not null,
    applied_position bigint not null,
    primary key (organization_id, minute, provider_id)
) with (fillfactor = 50);
comment on table webhook_analytics is 'Projection: what happened in each minute, per provider.';
comment on column webhook_analytics.organization_id is 'The tenant.';
comment on column webhook_analytics.minute is 'Beginning of the minute, UTC.';
comment on column webhook_analytics.provider_id is 'Whose webhooks.';
comment on column webhook_analytics.received is 'Webhooks accepted, duplicates apart.';
comment on column webhook_analytics.duplicates is 'Further deliveries of events that were there already.';
comment on column webhook_analytics.rejected is 'Requests refused, those that were only counted among them.';
comment on column webhook_analytics.succeeded is 'Attempts that succeeded.';
comment on column webhook_analytics.failed is 'Attempts that failed.';
comment on column webhook_analytics.retried is 'Attempts that ended and were not the first at their webhook.';
comment on column webhook_analytics.dead_lettered is 'Webhooks that were given up.';
comment on column webhook_analytics.latency is 'How many that succeeded took how long since they were received: two classes to each doubling of 1 ms.';
comment on column webhook_analytics.applied_position is 'Position of the last event that was counted.';
-- Analytics of all organizations.
create index webhook_analytics_minute on webhook_analytics (minute);
select keep_tenants_apart('webhook_analytics');
grant select, insert, update, delete on webhook_analytics to hookledger_worker;
grant select on webhook_analytics to hookledger_runtime;
