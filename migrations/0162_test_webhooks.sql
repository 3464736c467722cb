-- Webhooks that people sent to try a provider are told apart from genuine ones.
alter table webhook_logs add column is_test boolean not null default false;
comment on column webhook_logs.is_test is 'A person sent it to try the provider.';

create index webhook_logs_tests on webhook_logs (organization_id, received_at desc, position desc) where is_test;
