-- The role that the running server acts as (`set role hookledger_runtime` on every connection).
-- It owns nothing, so it can neither change the schema nor switch triggers off. Roles belong to the
-- whole cluster: another database of the same cluster may have made it already, even just now.
do $$
begin
    if not exists (select from pg_roles where rolname = 'hookledger_runtime') then
        create role hookledger_runtime nologin;
    end if;
exception
    when duplicate_object or unique_violation then null;
end
$$;

-- Whoever migrates also serves. From PostgreSQL 16 on, who makes a role may not yet act as it; a
-- superuser may act as any; where somebody else granted it, that is enough.
do $$
begin
    execute format('grant hookledger_runtime to %I', current_user);
exception
    when insufficient_privilege or invalid_grant_operation then null;
end
$$;

do $$
begin
    execute format('grant usage on schema %I to hookledger_runtime', current_schema());
end
$$;
