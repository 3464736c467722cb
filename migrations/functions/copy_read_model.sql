-- Read models are rebuilt beside the live ones, and replayed as they once were, in copies: the same
-- tables under the same names in a schema of their own. `like` alone leaves out what makes a table
-- ours: names of its indexes, its storage, its triggers, its policies, its grants.
create or replace function copy_read_model(p_table regclass, p_schema name, p_live boolean) returns void
language plpgsql as $$
declare
    source record;
    part record;
    original text;
    copy text;
begin
    select n.nspname, c.relname, c.reloptions, c.relacl, c.relrowsecurity, c.relforcerowsecurity,
           obj_description(c.oid, 'pg_class') as told
    into strict source
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = p_table;
    -- These would go on pointing at the table that is replaced.
    if exists (select from pg_constraint where contype = 'f' and p_table in (conrelid, confrelid))
       or exists (select from pg_depend where refobjid = p_table and classid = 'pg_rewrite'::regclass) then
        raise exception '% cannot be copied: a foreign key or a view depends on it', p_table;
    end if;
    original := format('%I.%I', source.nspname, source.relname);
    copy := format('%I.%I', p_schema, source.relname);
    execute format('create table %s (like %s including all excluding indexes)', copy, original);
    execute format('comment on table %s is %L', copy, source.told);
    if source.reloptions is not null then
        execute format('alter table %s set (%s)', copy, array_to_string(source.reloptions, ', '));
    end if;
    for part in
        select conname, conindid, pg_get_constraintdef(oid) as definition
        from pg_constraint where conrelid = p_table and contype in ('p', 'u', 'x')
    loop
        execute format('alter table %s add constraint %I %s', copy, part.conname, part.definition);
    end loop;
    for part in
        select pg_get_indexdef(i.indexrelid) as definition
        from pg_index i
        where i.indrelid = p_table
          and not exists (select from pg_constraint c
                          where c.conindid = i.indexrelid and c.conrelid = p_table and c.contype in ('p', 'u', 'x'))
    loop
        execute replace(part.definition, format(' ON %s ', original), format(' ON %s ', copy));
    end loop;
    for part in
        select pg_get_triggerdef(oid) as definition from pg_trigger where tgrelid = p_table and not tgisinternal
    loop
        execute replace(part.definition, format(' ON %s ', original), format(' ON %s ', copy));
    end loop;
    execute format('grant select, insert, update, delete on %s to hookledger_worker', copy);
    -- Only a copy that people will read gets row-level security and grants: a replay is for operators.
    if not p_live then
        return;
    end if;
    if source.relrowsecurity then
        execute format('alter table %s enable row level security', copy);
    end if;
    if source.relforcerowsecurity then
        execute format('alter table %s force row level security', copy);
    end if;
    for part in
        select policyname, permissive, cmd, qual, with_check,
               (select string_agg(quote_ident(role), ', ') from unnest(roles) as role) as roles
        from pg_policies where schemaname = source.nspname and tablename = source.relname
    loop
        execute format('create policy %I on %s as %s for %s to %s', part.policyname, copy, part.permissive, part.cmd, part.roles)
            || coalesce(' using (' || part.qual || ')', '')
            || coalesce(' with check (' || part.with_check || ')', '');
    end loop;
    for part in select grantee, privilege_type from aclexplode(source.relacl)
    loop
        execute format('grant %s on %s to %s', part.privilege_type, copy,
                       case when part.grantee = 0 then 'public' else part.grantee::regrole::text end);
    end loop;
end
$$;
comment on function copy_read_model is
    'Makes an empty copy of a read model in another schema; with p_live one that can take its place.';
