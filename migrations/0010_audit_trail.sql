-- Read model of the audit trail: who did what to what, with the values before and after.
create table audit_logs (
    organization_id uuid not null,
    partition int not null,
    position bigint not null,
    at timestamptz not null,
    user_id uuid,
    session_id uuid,
    client text,
    agent text,
    action text not null,
    resource_type text not null,
    resource_id uuid not null,
    changes jsonb not null,
    primary key (organization_id, partition, position)
);
comment on table audit_logs is 'Projection: the audit trail.';
comment on column audit_logs.organization_id is 'The tenant.';
comment on column audit_logs.partition is 'Partition in the log of that event.';
comment on column audit_logs.position is 'Position in the log of the event that this row tells.';
comment on column audit_logs.at is 'When.';
comment on column audit_logs.user_id is 'Who did it; null is the system.';
comment on column audit_logs.session_id is 'In which session.';
comment on column audit_logs.client is 'From which address.';
comment on column audit_logs.agent is 'What the client said it is.';
comment on column audit_logs.action is 'created, updated, deleted, signed_in…';
comment on column audit_logs.resource_type is 'organization, user, provider, webhook, audit_log.';
comment on column audit_logs.resource_id is 'Which one.';
comment on column audit_logs.changes is '{"old": {…}, "new": {…}}, the changed fields only; never a secret.';
-- `audit_logs::list`, by each of its filters.
create index audit_logs_newest on audit_logs (organization_id, at desc, partition desc, position desc);
create index audit_logs_newest_of_all on audit_logs (at desc, partition desc, position desc);
create index audit_logs_by_user on audit_logs (organization_id, user_id, at desc, partition desc, position desc);
create index audit_logs_by_resource on audit_logs (organization_id, resource_id, at desc, partition desc, position desc);
select keep_tenants_apart('audit_logs');
grant select, insert, update, delete on audit_logs to hookledger_worker;
grant select on audit_logs to hookledger_runtime;

create table audit_resources (
    organization_id uuid not null,
    resource_type text not null,
    resource_id uuid not null,
    state jsonb not null,
    primary key (organization_id, resource_type, resource_id)
);
comment on table audit_resources is 'What the audit trail knows of each resource, to tell the old values.';
comment on column audit_resources.organization_id is 'The tenant.';
comment on column audit_resources.resource_type is 'organization, user, provider.';
comment on column audit_resources.resource_id is 'Which one.';
comment on column audit_resources.state is 'Its fields after the last event.';
select keep_tenants_apart('audit_resources');
grant select, insert, update, delete on audit_resources to hookledger_worker;
