-- Personal data is stored beside the log, so that it can be erased; the log holds a keyed hash of the address.
-- `email_key` is a column instead of an index on `lower(email)`: behind row-level security only a leakproof condition
-- chooses an index, and `lower` is none.
create table user_emails (
    organization_id uuid not null,
    user_id uuid not null,
    email text not null,
    email_key text not null generated always as (lower(email)) stored,
    primary key (organization_id, user_id)
);
comment on table user_emails is 'E-mail addresses of users: personal data, erasable.';
comment on column user_emails.organization_id is 'The tenant; the nil UUID for super admins.';
comment on column user_emails.user_id is 'Whose address it is.';
comment on column user_emails.email is 'The address as it was given.';
comment on column user_emails.email_key is 'What the address is sorted by; gone with the row.';
-- `users::list_everywhere` sorts by address.
create index user_emails_by_email on user_emails (email_key, user_id);
select keep_tenants_apart('user_emails');
grant select, insert, delete on user_emails to hookledger_worker;
grant select on user_emails to hookledger_runtime;

create table magic_links (
    token_sha256 bytea not null,
    organization_id uuid not null,
    user_id uuid not null,
    expires_at timestamptz not null,
    used_at timestamptz,
    primary key (token_sha256)
);
comment on table magic_links is 'Sign-in links that were made; the tokens themselves are nowhere.';
comment on column magic_links.token_sha256 is 'SHA-256 of the 256 random bits in the link.';
comment on column magic_links.organization_id is 'The tenant of the user.';
comment on column magic_links.user_id is 'Who signs in with it.';
comment on column magic_links.expires_at is 'From then on it is refused.';
comment on column magic_links.used_at is 'When it was used; it works once.';
-- A user has one unused link: a new one takes its place in one statement.
create unique index magic_links_open on magic_links (organization_id, user_id) where used_at is null;
-- Expired links are swept.
create index magic_links_expiry on magic_links (expires_at);
select keep_tenants_apart('magic_links');
grant select, insert, delete on magic_links to hookledger_worker;
grant update (token_sha256, expires_at, used_at) on magic_links to hookledger_worker;

-- A session is in force while its row says so: its end is in force on every node with the commit, whatever followers
-- do. The log has its beginning and its end.
create table sessions (
    organization_id uuid not null,
    session_id uuid not null,
    user_id uuid not null,
    started_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    ended_at timestamptz,
    client text,
    agent text,
    primary key (organization_id, session_id)
);
comment on table sessions is 'Who is signed in since when and from where.';
comment on column sessions.organization_id is 'The tenant of the user; the nil UUID for super admins.';
comment on column sessions.session_id is 'In the token, and in the events of the user.';
comment on column sessions.user_id is 'Who signed in.';
comment on column sessions.started_at is 'When the link was used.';
comment on column sessions.expires_at is 'From then on the token is refused.';
comment on column sessions.ended_at is 'When somebody ended it.';
comment on column sessions.client is 'From which address.';
comment on column sessions.agent is 'What the client said it is.';
-- `Sessions::of_users`.
create index sessions_of_user on sessions (organization_id, user_id, started_at desc);
-- Expired sessions are swept.
create index sessions_expiry on sessions (expires_at);
select keep_tenants_apart('sessions');
grant select, insert, delete on sessions to hookledger_worker;
grant select on sessions to hookledger_runtime;
grant update (ended_at) on sessions to hookledger_worker;
