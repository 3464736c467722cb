-- Tenants are kept apart by the database as well. Two roles act on it: `hookledger_runtime` reads for
-- people and sees one organization, which its transaction names; `hookledger_worker` appends,
-- follows and keeps the read models, for everybody.
do $$
begin
    if not exists (select from pg_roles where rolname = 'hookledger_worker') then
        create role hookledger_worker nologin;
    end if;
exception
    when duplicate_object or unique_violation then null;
    when insufficient_privilege then
        raise exception 'the role hookledger_worker is missing and % may not make it: as a superuser, run '
            '"create role hookledger_worker nologin; grant hookledger_worker to %"', current_user, current_user
            using errcode = 'insufficient_privilege';
end
$$;

do $$
begin
    execute format('grant hookledger_worker to %I', current_user);
exception
    when insufficient_privilege or invalid_grant_operation then null;
end
$$;

do $$
begin
    execute format('grant usage on schema %I to hookledger_worker', current_schema());
end
$$;

-- Forced, so that it holds for the owner too. The settings are read once per query, not per row.
create function keep_tenants_apart(p_table regclass, p_column name default 'organization_id') returns void
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

select keep_tenants_apart(name::regclass)
from unnest(array['events', 'webhook_bodies', 'provider_secrets', 'user_emails', 'magic_links', 'users',
                  'webhook_providers', 'provider_secret_versions', 'webhook_logs', 'webhook_retries',
                  'webhook_open', 'webhook_counts', 'provider_secret_uses', 'audit_logs', 'audit_resources']) as name;
select keep_tenants_apart('organizations', 'id');

-- Workers do what the one role did before.
grant select, insert on events, webhook_bodies, provider_secrets, platform_secrets to hookledger_worker;
grant select, update (position, recorded_at) on log_heads to hookledger_worker;
grant select, insert, delete on user_emails to hookledger_worker;
grant select, insert, delete, update (used_at) on magic_links to hookledger_worker;
grant select, insert, update on followers, follower_checkpoints to hookledger_worker;
grant select, insert, update, delete on organizations, users, webhook_providers, provider_secret_versions,
    webhook_logs, webhook_open, webhook_retries, webhook_counts, provider_secret_uses, audit_logs, audit_resources
    to hookledger_worker;

-- Who reads for people reads, and only what people see.
revoke all on events, log_heads, webhook_bodies, provider_secrets, platform_secrets, user_emails, magic_links,
    followers, follower_checkpoints, organizations, users, webhook_providers, provider_secret_versions,
    webhook_logs, webhook_open, webhook_retries, webhook_counts, provider_secret_uses, audit_logs, audit_resources
    from hookledger_runtime;
grant select on events, webhook_bodies, user_emails, organizations, users, webhook_providers,
    provider_secret_versions, webhook_logs, webhook_open, webhook_retries, webhook_counts, provider_secret_uses, audit_logs
    to hookledger_runtime;
