-- Two roles act on the database; neither owns anything, so neither can change the schema or switch triggers off.
-- `hookledger_worker` appends, follows and keeps the read models, for every organization. `hookledger_runtime` reads
-- for people, and sees the one organization that its transaction names.
-- Roles belong to the whole cluster: another database of the cluster may have made them, even at this moment.
do $$
declare
    role name;
begin
    foreach role in array array['hookledger_runtime', 'hookledger_worker'] loop
        begin
            if not exists (select from pg_roles where rolname = role) then
                execute format('create role %I nologin', role);
            end if;
        exception
            when duplicate_object or unique_violation then null;
            when insufficient_privilege then
                raise exception 'the role % is missing and % may not create it: as a superuser, run '
                    '"create role % nologin; grant % to %"', role, current_user, role, role, current_user
                    using errcode = 'insufficient_privilege';
        end;
        -- The user who migrates also serves. From PostgreSQL 16 on, a user who creates a role may not yet act as it.
        -- A superuser may act as any role; a grant by somebody else is enough, too.
        begin
            execute format('grant %I to %I', role, current_user);
        exception
            when insufficient_privilege or invalid_grant_operation then null;
        end;
        execute format('grant usage on schema %I to %I', current_schema(), role);
    end loop;
end
$$;
