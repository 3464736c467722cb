-- Read models of webhooks and their attempts. Derived: they can be dropped and rebuilt.
create table webhook_logs (
    organization_id uuid not null,
    webhook_id uuid not null,
    position bigint not null,
    applied_position bigint not null,
    provider_id uuid not null,
    provider_event_id text,
    event_type text,
    body_sha256 text collate "C" not null,
    body_size bigint not null,
    content_type text,
    signature_received text,
    signature_valid boolean not null,
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
    primary key (organization_id, webhook_id)
) with (fillfactor = 80);
-- received_at is the time of recording, which orders as positions do: one index serves both the
-- list, newest first, and a range of time.
create index webhook_logs_newest on webhook_logs (organization_id, received_at desc, position desc);
create index webhook_logs_failed on webhook_logs (organization_id, received_at desc, position desc)
    where status = 'failed';
create index webhook_logs_open on webhook_logs (organization_id, status, received_at desc, position desc)
    where status in ('pending', 'processing');
create index webhook_logs_provider on webhook_logs (organization_id, provider_id, received_at desc, position desc);
create index webhook_logs_event_id on webhook_logs (organization_id, provider_event_id);
comment on table webhook_logs is 'Projection: one row per webhook, accepted or rejected.';
comment on column webhook_logs.organization_id is 'The tenant.';
comment on column webhook_logs.webhook_id is 'The webhook.';
comment on column webhook_logs.position is 'Position of its first event: the order of lists.';
comment on column webhook_logs.applied_position is 'Position of its last event: replay changes nothing.';
comment on column webhook_logs.provider_id is 'Who sent it.';
comment on column webhook_logs.provider_event_id is 'The provider''s own id of the event.';
comment on column webhook_logs.event_type is 'The provider''s own name for it.';
comment on column webhook_logs.body_sha256 is 'Hex digest of the raw body.';
comment on column webhook_logs.body_size is 'Bytes of the raw body.';
comment on column webhook_logs.content_type is 'As received.';
comment on column webhook_logs.signature_received is 'The signature header as it came.';
comment on column webhook_logs.signature_valid is 'False for rejections.';
comment on column webhook_logs.status is 'pending, processing, success, failed.';
comment on column webhook_logs.retry_count is '0 to 3: automatic retries so far.';
comment on column webhook_logs.error_message is 'What went wrong last.';
comment on column webhook_logs.received_at is 'When it was recorded, just before the answer.';
comment on column webhook_logs.updated_at is 'Time of its last event.';
comment on column webhook_logs.processed_at is 'When an attempt succeeded.';
comment on column webhook_logs.next_retry_at is 'When the next attempt is due.';
comment on column webhook_logs.dead_lettered_at is 'When it was given up, until a person retries it.';
comment on column webhook_logs.duplicate_count is 'Further deliveries of the same event.';
comment on column webhook_logs.body_differs is 'A duplicate came with another body.';

create table webhook_retries (
    organization_id uuid not null,
    webhook_id uuid not null,
    attempt_number int not null,
    attempted_at timestamptz not null,
    ended_at timestamptz,
    succeeded boolean,
    status_code int,
    duration_ms bigint,
    error_details text,
    primary key (organization_id, webhook_id, attempt_number)
);
comment on table webhook_retries is 'Projection: every attempt at processing, the first included.';
comment on column webhook_retries.organization_id is 'The tenant.';
comment on column webhook_retries.webhook_id is 'The webhook.';
comment on column webhook_retries.attempt_number is '1 is the first try, 2 to 4 are retries 1 to 3.';
comment on column webhook_retries.attempted_at is 'When it began.';
comment on column webhook_retries.ended_at is 'When it ended, while null it runs.';
comment on column webhook_retries.succeeded is 'How it ended.';
comment on column webhook_retries.status_code is 'HTTP status of the destination.';
comment on column webhook_retries.duration_ms is 'Milliseconds.';
comment on column webhook_retries.error_details is 'What went wrong.';

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

grant select, insert, update, delete on webhook_logs, webhook_retries, webhook_counts, provider_secret_uses
    to hookledger_runtime;
