-- Invitations: until somebody joined, their address may be asked for by several organizations.
alter table users
    add column joined_at timestamptz,
    add column deactivated_at timestamptz;
-- Nobody could be invited before. Row-level security is forced on the owner too, and shows it nothing.
alter table users no force row level security;
update users set joined_at = created_at;
alter table users force row level security;
drop index users_email_claim;
create unique index users_email_claim on users (email_claim_id) where joined_at is not null;
create index users_invited on users (email_claim_id) where joined_at is null;
create index users_newest on users (organization_id, created_at desc, id desc);
create index users_newest_of_all on users (created_at desc, id desc);
comment on column users.joined_at is 'When they first signed in or were registered; null while they are only invited.';
comment on column users.deactivated_at is 'When they were last deactivated: sessions that began before are over.';

alter table organizations add column deactivated_at timestamptz;
comment on column organizations.deactivated_at is
    'When it was last deactivated: sessions of its users that began before are over.';
