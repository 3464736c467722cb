-- Read model of the analytics. Derived: it can be dropped and rebuilt.
create table webhook_analytics (
    organization_id uuid not null,
    minute timestamptz not null,
    provider_id uuid not null,
    received bigint not null,
    duplicates bigint not null,
    rejected bigint not null,
    succeeded bigint not null,
    failed bigint not null,
    dead_lettered bigint not null,
    latency bigint[] not null,
    applied_position bigint not null,
    primary key (organization_id, minute, provider_id)
) with (fillfactor = 50);
create index webhook_analytics_minute on webhook_analytics (minute);
comment on table webhook_analytics is 'Projection: what happened in each minute, per provider.';
comment on column webhook_analytics.organization_id is 'The tenant.';
comment on column webhook_analytics.minute is 'Beginning of the minute, UTC.';
comment on column webhook_analytics.provider_id is 'Whose webhooks.';
comment on column webhook_analytics.received is 'Webhooks accepted, duplicates apart.';
comment on column webhook_analytics.duplicates is 'Further deliveries of events that were there already.';
comment on column webhook_analytics.rejected is 'Requests refused, those that were only counted among them.';
comment on column webhook_analytics.succeeded is 'Attempts that succeeded.';
comment on column webhook_analytics.failed is 'Attempts that failed.';
comment on column webhook_analytics.dead_lettered is 'Webhooks that were given up.';
comment on column webhook_analytics.latency is
    'How many that succeeded took how long since they were received: two classes to each doubling of 1 ms.';
comment on column webhook_analytics.applied_position is 'Position of the last event that was counted.';

select keep_tenants_apart('webhook_analytics');
grant select, insert, update, delete on webhook_analytics to hookledger_worker;
grant select on webhook_analytics to hookledger_runtime;
