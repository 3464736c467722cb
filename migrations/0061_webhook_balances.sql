-- How many rows of webhook_logs stand where, counted as they change: whoever changes one, also with psql,
-- changes these counts, and the log tells otherwise. Counting a million rows each time would not do.
create table webhook_balances (
    organization_id uuid primary key,
    pending bigint not null default 0,
    processing bigint not null default 0,
    succeeded bigint not null default 0,
    failed bigint not null default 0,
    dead_lettered bigint not null default 0,
    rejected bigint not null default 0
) with (fillfactor = 50);
comment on table webhook_balances is 'Projection: how many rows of webhook_logs stand where, kept by triggers on it.';
comment on column webhook_balances.organization_id is 'The tenant.';
comment on column webhook_balances.pending is 'They wait for an attempt, or for their signature to be verified.';
comment on column webhook_balances.processing is 'An attempt runs.';
comment on column webhook_balances.succeeded is 'An attempt succeeded.';
comment on column webhook_balances.failed is 'They wait for a retry.';
comment on column webhook_balances.dead_lettered is 'They wait for a person.';
comment on column webhook_balances.rejected is 'They were refused.';

-- Says nothing of schemas but by tg_table_schema: copies of read models have triggers of their own.
create function balance_webhooks() returns trigger
language plpgsql as $$
declare
    changes text := case tg_op
        when 'INSERT' then 'select organization_id, status, signature_valid, dead_lettered_at, 1 as n from new_rows'
        when 'DELETE' then 'select organization_id, status, signature_valid, dead_lettered_at, -1 as n from old_rows'
        when 'UPDATE' then 'select organization_id, status, signature_valid, dead_lettered_at, 1 as n from new_rows
                        union all select organization_id, status, signature_valid, dead_lettered_at, -1 as n from old_rows'
    end;
begin
    if tg_op = 'TRUNCATE' then
        execute format('delete from %I.webhook_balances', tg_table_schema);
        return null;
    end if;
    execute format(
        'insert into %I.webhook_balances as b
             (organization_id, pending, processing, succeeded, failed, dead_lettered, rejected)
         select organization_id,
                coalesce(sum(n) filter (where status = ''pending''), 0),
                coalesce(sum(n) filter (where status = ''processing''), 0),
                coalesce(sum(n) filter (where status = ''success''), 0),
                coalesce(sum(n) filter (where status = ''failed'' and signature_valid and dead_lettered_at is null), 0),
                coalesce(sum(n) filter (where status = ''failed'' and signature_valid and dead_lettered_at is not null), 0),
                coalesce(sum(n) filter (where status = ''failed'' and not signature_valid), 0)
         from (%s) c group by organization_id order by organization_id
         on conflict (organization_id) do update
         set pending = b.pending + excluded.pending, processing = b.processing + excluded.processing,
             succeeded = b.succeeded + excluded.succeeded, failed = b.failed + excluded.failed,
             dead_lettered = b.dead_lettered + excluded.dead_lettered, rejected = b.rejected + excluded.rejected',
        tg_table_schema, changes);
    return null;
end
$$;
comment on function balance_webhooks is 'Keeps webhook_balances beside webhook_logs, in whichever schema they are.';

select keep_tenants_apart('webhook_balances');
grant select, insert, update, delete on webhook_balances to hookledger_worker;
grant select on webhook_balances to hookledger_runtime;

-- Row-level security holds for the owner too, so the worker counts what is there; nobody adds to it meanwhile.
lock table webhook_logs in share row exclusive mode;
set local role hookledger_worker;
insert into webhook_balances (organization_id, pending, processing, succeeded, failed, dead_lettered, rejected)
select organization_id,
       count(*) filter (where status = 'pending'),
       count(*) filter (where status = 'processing'),
       count(*) filter (where status = 'success'),
       count(*) filter (where status = 'failed' and signature_valid and dead_lettered_at is null),
       count(*) filter (where status = 'failed' and signature_valid and dead_lettered_at is not null),
       count(*) filter (where status = 'failed' and not signature_valid)
from webhook_logs group by organization_id;
reset role;

create trigger balance_inserted after insert on webhook_logs
    referencing new table as new_rows for each statement execute function balance_webhooks();
create trigger balance_updated after update on webhook_logs
    referencing new table as new_rows old table as old_rows for each statement execute function balance_webhooks();
create trigger balance_deleted after delete on webhook_logs
    referencing old table as old_rows for each statement execute function balance_webhooks();
create trigger balance_truncated after truncate on webhook_logs
    for each statement execute function balance_webhooks();
