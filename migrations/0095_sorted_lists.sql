-- Super admins sort organizations, users and providers, and no list is sorted whole for a page of it. Columns
-- instead of indexes on `lower(…)`: behind row-level security only a leakproof condition chooses an index, and
-- `lower` is none.
alter table organizations add column name_key text not null generated always as (lower(name)) stored;
comment on column organizations.name_key is 'What the name is sorted by.';
create index organizations_by_name on organizations (name_key, id);

alter table user_emails add column email_key text not null generated always as (lower(email)) stored;
comment on column user_emails.email_key is 'What the address is sorted by; gone with the row.';
create index user_emails_by_email on user_emails (email_key, user_id);

create index users_by_last_login on users (last_login_at, id);
create index webhook_providers_newest on webhook_providers (created_at, id) where deleted_at is null;
create index webhook_providers_by_name on webhook_providers (provider_name, id) where deleted_at is null;
