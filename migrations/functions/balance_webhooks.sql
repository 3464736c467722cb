-- Says nothing of schemas but by tg_table_schema: copies of read models have triggers of their own.
create or replace function balance_webhooks() returns trigger
language plpgsql as $$
declare
    changes text := case tg_op
        when 'INSERT' then 'select organization_id, status, signature_valid, dead_lettered_at, 1 as n from new_rows where coalesce(deliveries, 0) = 0'
        when 'DELETE' then 'select organization_id, status, signature_valid, dead_lettered_at, -1 as n from old_rows where coalesce(deliveries, 0) = 0'
        when 'UPDATE' then 'select organization_id, status, signature_valid, dead_lettered_at, 1 as n from new_rows where coalesce(deliveries, 0) = 0
                        union all select organization_id, status, signature_valid, dead_lettered_at, -1 as n from old_rows where coalesce(deliveries, 0) = 0'
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
comment on function balance_webhooks is 'Counts webhooks without deliveries in webhook_balances, in whichever schema they are.';
