-- Read models of organizations, users and providers. Derived: they can be dropped and rebuilt.
create table organizations (
    id uuid primary key,
    name text not null,
    slug text not null,
    plan text not null,
    webhook_limit int,
    is_active boolean not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    applied_position bigint not null
);
create unique index organizations_slug on organizations (slug);
create index organizations_newest on organizations (created_at desc, id desc);
comment on table organizations is 'Projection: customers.';
comment on column organizations.id is 'Derived from the slug.';
comment on column organizations.name is 'Shown to people.';
comment on column organizations.slug is 'In URLs; fixed.';
comment on column organizations.plan is 'free, starter, premium.';
comment on column organizations.webhook_limit is 'Accepted webhooks per calendar month, UTC; null is unlimited.';
comment on column organizations.is_active is 'Receives webhooks.';
comment on column organizations.created_at is 'Time of its first event.';
comment on column organizations.updated_at is 'Time of its last event.';
comment on column organizations.applied_position is 'Position of its last event.';

create table users (
    organization_id uuid not null,
    id uuid not null,
    email_claim_id uuid not null,
    role text not null,
    is_active boolean not null,
    last_login_at timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    applied_position bigint not null,
    primary key (organization_id, id)
);
create unique index users_email_claim on users (email_claim_id);
comment on table users is 'Projection: people who sign in.';
comment on column users.organization_id is 'The tenant; the nil UUID for super admins.';
comment on column users.id is 'The user.';
comment on column users.email_claim_id is 'Keyed hash of the address, which lies in user_emails.';
comment on column users.role is 'super_admin, admin, member.';
comment on column users.is_active is 'May sign in.';
comment on column users.last_login_at is 'Time of the last sign-in.';
comment on column users.created_at is 'Time of the first event.';
comment on column users.updated_at is 'Time of the last event.';
comment on column users.applied_position is 'Position of the last event.';

create table webhook_providers (
    organization_id uuid not null,
    id uuid not null,
    provider_name text not null,
    is_active boolean not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    deleted_at timestamptz,
    applied_position bigint not null,
    primary key (organization_id, id)
);
comment on table webhook_providers is 'Projection: connections to third-party services.';
comment on column webhook_providers.organization_id is 'The tenant.';
comment on column webhook_providers.id is 'Derived from organization and provider name.';
comment on column webhook_providers.provider_name is 'stripe, github, shopify, standard.';
comment on column webhook_providers.is_active is 'Accepts webhooks.';
comment on column webhook_providers.created_at is 'When it was connected.';
comment on column webhook_providers.updated_at is 'Time of its last change.';
comment on column webhook_providers.deleted_at is 'When it was deleted, unless connected again.';
comment on column webhook_providers.applied_position is 'Position of the last event.';

create table provider_secret_versions (
    organization_id uuid not null,
    provider_id uuid not null,
    version int not null,
    set_at timestamptz not null,
    expires_at timestamptz,
    primary key (organization_id, provider_id, version)
);
comment on table provider_secret_versions is 'Projection: what may be known of signing secrets.';
comment on column provider_secret_versions.organization_id is 'The tenant.';
comment on column provider_secret_versions.provider_id is 'Whose secret.';
comment on column provider_secret_versions.version is '1, 2, 3… per provider.';
comment on column provider_secret_versions.set_at is 'When it was set.';
comment on column provider_secret_versions.expires_at is 'When its grace period ends, or its provider was deleted.';

grant select, insert, update, delete on organizations, users, webhook_providers, provider_secret_versions
    to hookledger_runtime;
