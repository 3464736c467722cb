-- The monthly limit is decided inside the append: the lock on an organization's head makes its appends take turns, on
-- any number of nodes, so counting under it is exact. Organizations without a limit have no row here.
create table monthly_counters (
    organization_id uuid not null,
    month date not null,
    accepted bigint not null,
    limited_since timestamptz not null,
    primary key (organization_id, month)
) with (fillfactor = 50);
comment on table monthly_counters is 'Webhooks accepted in a month, of organizations that have a limit.';
comment on column monthly_counters.organization_id is 'The tenant.';
comment on column monthly_counters.month is 'First day of the month, UTC.';
comment on column monthly_counters.accepted is 'Accepted webhooks, duplicates apart.';
comment on column monthly_counters.limited_since is 'Since when there has been a limit; a later one is counted anew.';
select keep_tenants_apart('monthly_counters');
grant select, insert, update on monthly_counters to hookledger_worker;
grant select on monthly_counters to hookledger_runtime;
