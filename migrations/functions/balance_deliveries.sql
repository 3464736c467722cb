-- Says nothing of schemas but by tg_table_schema: copies of read models have triggers of their own.
create or replace function balance_deliveries() returns trigger
language plpgsql as $$
declare
    changes text := case tg_op
        when 'INSERT' then 'select organization_id, phase, 1 as n from new_rows'
        when 'DELETE' then 'select organization_id, phase, -1 as n from old_rows'
        when 'UPDATE' then 'select organization_id, phase, 1 as n from new_rows
                        union all select organization_id, phase, -1 as n from old_rows'
    end;
begin
    if tg_op = 'TRUNCATE' then
        execute format('delete from %I.webhook_balances', tg_table_schema);
        return null;
    end if;
    execute format(
        'insert into %I.webhook_balances as b
             (organization_id, pending, processing, succeeded, failed, dead_lettered, cancelled)
         select organization_id,
                coalesce(sum(n) filter (where phase = ''pending''), 0),
                coalesce(sum(n) filter (where phase = ''processing''), 0),
                coalesce(sum(n) filter (where phase = ''succeeded''), 0),
                coalesce(sum(n) filter (where phase = ''awaiting_retry''), 0),
                coalesce(sum(n) filter (where phase = ''dead_lettered''), 0),
                coalesce(sum(n) filter (where phase = ''cancelled''), 0)
         from (%s) c group by organization_id order by organization_id
         on conflict (organization_id) do update
         set pending = b.pending + excluded.pending, processing = b.processing + excluded.processing,
             succeeded = b.succeeded + excluded.succeeded, failed = b.failed + excluded.failed,
             dead_lettered = b.dead_lettered + excluded.dead_lettered, cancelled = b.cancelled + excluded.cancelled',
        tg_table_schema, changes);
    return null;
end
$$;
comment on function balance_deliveries is 'Counts deliveries in webhook_balances, in whichever schema they are.';
