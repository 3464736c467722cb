-- Sessions: beside the log, which has their beginnings and ends. A session is in force while its row
-- says so, so that its end is in force on every node with the commit, whatever followers do.
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
create index sessions_of_user on sessions (organization_id, user_id, started_at desc);
create index sessions_expiry on sessions (expires_at);
comment on table sessions is 'Who is signed in since when and from where.';
comment on column sessions.organization_id is 'The tenant of the user; the nil UUID for super admins.';
comment on column sessions.session_id is 'In the token, and in the events of the user.';
comment on column sessions.user_id is 'Who signed in.';
comment on column sessions.started_at is 'When the link was used.';
comment on column sessions.expires_at is 'From then on the token is refused.';
comment on column sessions.ended_at is 'When somebody ended it.';
comment on column sessions.client is 'From which address.';
comment on column sessions.agent is 'What the client said it is.';

-- Old rows of both are swept.
create index magic_links_expiry on magic_links (expires_at);

select keep_tenants_apart('sessions');
grant select, insert, delete, update (ended_at) on sessions to hookledger_worker;
grant select on sessions to hookledger_runtime;
