-- Where webhooks are forwarded to, and what may be known of the secrets that sign deliveries.
alter table webhook_providers
    add column destination_url text,
    add column destination_timeout_seconds int,
    add column destination_concurrency int,
    add column destination_headers text[],
    add column destination_set_at timestamptz;
comment on column webhook_providers.destination_url is 'Where webhooks are forwarded to; null: recording is the processing.';
comment on column webhook_providers.destination_timeout_seconds is 'How long it may take to answer; null: the deployment''s default.';
comment on column webhook_providers.destination_concurrency is 'Attempts at the same time, per node.';
comment on column webhook_providers.destination_headers is 'Names of the headers that deliveries carry besides; their values are secrets.';
comment on column webhook_providers.destination_set_at is 'When the destination was last changed.';

create table destination_secret_versions (
    organization_id uuid not null,
    provider_id uuid not null,
    version int not null,
    set_at timestamptz not null,
    expires_at timestamptz,
    primary key (organization_id, provider_id, version)
);
comment on table destination_secret_versions is 'Projection: what may be known of the secrets that sign deliveries.';
comment on column destination_secret_versions.organization_id is 'The tenant.';
comment on column destination_secret_versions.provider_id is 'Whose deliveries.';
comment on column destination_secret_versions.version is 'Counted with the provider''s other secrets.';
comment on column destination_secret_versions.set_at is 'When it was set.';
comment on column destination_secret_versions.expires_at is 'Signs no longer from then on.';

select keep_tenants_apart('destination_secret_versions');
grant select, insert, update, delete on destination_secret_versions to hookledger_worker;
grant select on destination_secret_versions to hookledger_runtime;
