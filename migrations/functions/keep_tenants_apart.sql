-- Forced, so that it holds for the owner too. The settings are read once per query, not per row.
create or replace function keep_tenants_apart(p_table regclass, p_column name default 'organization_id') returns void
language plpgsql as $$
begin
    execute format('alter table %s enable row level security', p_table);
    execute format('alter table %s force row level security', p_table);
    execute format(
        'create policy one_tenant on %s for select to hookledger_runtime using (
             %I = (select nullif(current_setting(''hookledger.organization'', true), '''')::uuid)
             or (select current_setting(''hookledger.everybody'', true) = ''on''))', p_table, p_column);
    execute format('create policy every_tenant on %s to hookledger_worker using (true) with check (true)', p_table);
end
$$;
comment on function keep_tenants_apart is
    'For every table that has rows of tenants: the row-level security that people''s reads pass through.';
