-- Read model of the audit trail: who did what to what, with the values before and after.
create table audit_logs (
    organization_id uuid not null,
    position bigint not null,
    partition int not null,
    user_id uuid,
    session_id uuid,
    client text,
    action text not null,
    resource_type text not null,
    resource_id uuid not null,
    changes jsonb not null,
    at timestamptz not null,
    primary key (organization_id, partition, position)
);
create index audit_logs_newest on audit_logs (organization_id, at desc, position desc);
comment on table audit_logs is 'Projection: the audit trail.';
comment on column audit_logs.organization_id is 'The tenant.';
comment on column audit_logs.position is 'Position in the log of the event that this row tells.';
comment on column audit_logs.partition is 'Partition in the log of that event.';
comment on column audit_logs.user_id is 'Who did it; null is the system.';
comment on column audit_logs.session_id is 'In which session.';
comment on column audit_logs.client is 'From which address.';
comment on column audit_logs.action is 'created, updated, deleted, signed_in…';
comment on column audit_logs.resource_type is 'organization, user, provider, webhook.';
comment on column audit_logs.resource_id is 'Which one.';
comment on column audit_logs.changes is '{"old": {…}, "new": {…}}, the changed fields only; never a secret.';
comment on column audit_logs.at is 'When.';

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

grant select, insert, update, delete on audit_logs, audit_resources to hookledger_runtime;
