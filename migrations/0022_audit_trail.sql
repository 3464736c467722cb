-- The audit trail tells with what client, and is filtered by user and by resource.
alter table audit_logs add column agent text;
comment on column audit_logs.agent is 'What the client said it is.';
comment on column audit_logs.resource_type is 'organization, user, provider, webhook, audit_log.';

drop index audit_logs_newest;
create index audit_logs_newest on audit_logs (organization_id, at desc, partition desc, position desc);
create index audit_logs_newest_of_all on audit_logs (at desc, partition desc, position desc);
create index audit_logs_by_user on audit_logs (organization_id, user_id, at desc, partition desc, position desc);
create index audit_logs_by_resource on audit_logs (organization_id, resource_id, at desc, partition desc, position desc);
