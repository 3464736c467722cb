-- Personal data lies beside the log, so that it can be erased; the log holds a keyed hash of it.
create table user_emails (
    organization_id uuid not null,
    user_id uuid not null,
    email text not null,
    primary key (organization_id, user_id)
);
comment on table user_emails is 'E-mail addresses of users: personal data, erasable.';
comment on column user_emails.organization_id is 'The tenant; the nil UUID for super admins.';
comment on column user_emails.user_id is 'Whose address it is.';
comment on column user_emails.email is 'The address as it was given.';

create table magic_links (
    token_sha256 bytea primary key,
    organization_id uuid not null,
    user_id uuid not null,
    expires_at timestamptz not null,
    used_at timestamptz
);
comment on table magic_links is 'Sign-in links that were made; the tokens themselves are nowhere.';
comment on column magic_links.token_sha256 is 'SHA-256 of the 256 random bits in the link.';
comment on column magic_links.organization_id is 'The tenant of the user.';
comment on column magic_links.user_id is 'Who signs in with it.';
comment on column magic_links.expires_at is 'From then on it is refused.';
comment on column magic_links.used_at is 'When it was used; it works once.';

grant select, insert, delete on user_emails to hookledger_runtime;
grant select, insert, delete, update (used_at) on magic_links to hookledger_runtime;
