-- Read models of organizations, users, providers, destinations and routes. Derived: they can be dropped and rebuilt.
create table organizations (
    id uuid not null,
    name text not null,
    name_key text not null generated always as (lower(name)) stored,
    slug text not null,
    plan text not null,
    webhook_limit int,
    is_active boolean not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    applied_position bigint not null,
    deactivated_at timestamptz,
    primary key (id)
);
comment on table organizations is 'Projection: customers.';
comment on column organizations.id is 'Derived from the slug.';
comment on column organizations.name is 'Shown to people.';
comment on column organizations.name_key is 'What the name is sorted by.';
comment on column organizations.slug is 'In URLs; fixed.';
comment on column organizations.plan is 'free, starter, premium.';
comment on column organizations.webhook_limit is 'Accepted webhooks per calendar month, UTC; null is unlimited.';
comment on column organizations.is_active is 'Receives webhooks.';
comment on column organizations.created_at is 'Time of its first event.';
comment on column organizations.updated_at is 'Time of its last event.';
comment on column organizations.applied_position is 'Position of its last event.';
comment on column organizations.deactivated_at is 'When it was last deactivated: sessions of its users that began before are over.';
create unique index organizations_slug on organizations (slug);
-- `organizations::list`, in each of its orders.
create index organizations_newest on organizations (created_at desc, id desc);
create index organizations_by_name on organizations (name_key, id);
select keep_tenants_apart('organizations', 'id');
grant select, insert, update, delete on organizations to hookledger_worker;
grant select on organizations to hookledger_runtime;

create table users (
    organization_id uuid not null,
    id uuid not null,
    email_claim_id uuid,
    role text not null,
    is_active boolean not null,
    last_login_at timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    applied_position bigint not null,
    joined_at timestamptz,
    deactivated_at timestamptz,
    primary key (organization_id, id)
);
comment on table users is 'Projection: people who sign in.';
comment on column users.organization_id is 'The tenant; the nil UUID for super admins.';
comment on column users.id is 'The user.';
comment on column users.email_claim_id is 'Keyed hash of the address, which lies in user_emails; null once the user was erased.';
comment on column users.role is 'super_admin, admin, member.';
comment on column users.is_active is 'May sign in.';
comment on column users.last_login_at is 'Time of the last sign-in.';
comment on column users.created_at is 'Time of the first event.';
comment on column users.updated_at is 'Time of the last event.';
comment on column users.applied_position is 'Position of the last event.';
comment on column users.joined_at is 'When they first signed in or were registered; null while they are only invited.';
comment on column users.deactivated_at is 'When they were last deactivated: sessions that began before are over.';
-- Not unique: a rebuild comes to the partitions one after the other, and may see that a user has an address before it
-- sees that the one before was erased. The claim's stream makes the address one user's.
create index users_email_claim on users (email_claim_id) where joined_at is not null;
-- Several organizations may ask for the address of somebody who has not joined.
create index users_invited on users (email_claim_id) where joined_at is null;
-- `users::list` and `list_everywhere`, in each of their orders.
create index users_newest on users (organization_id, created_at desc, id desc);
create index users_newest_of_all on users (created_at desc, id desc);
create index users_by_last_login on users (last_login_at, id);
select keep_tenants_apart('users');
grant select, insert, update, delete on users to hookledger_worker;
grant select on users to hookledger_runtime;

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
-- `webhook_providers::list_everywhere`, in each of its orders.
create index webhook_providers_newest on webhook_providers (created_at, id) where deleted_at is null;
create index webhook_providers_by_name on webhook_providers (provider_name, id) where deleted_at is null;
select keep_tenants_apart('webhook_providers');
grant select, insert, update, delete on webhook_providers to hookledger_worker;
grant select on webhook_providers to hookledger_runtime;

create table provider_secret_versions (
    organization_id uuid not null,
    provider_id uuid not null,
    version int not null,
    label text,
    set_at timestamptz not null,
    expires_at timestamptz,
    primary key (organization_id, provider_id, version)
);
comment on table provider_secret_versions is 'Projection: what may be known of signing secrets.';
comment on column provider_secret_versions.organization_id is 'The tenant.';
comment on column provider_secret_versions.provider_id is 'Whose secret.';
comment on column provider_secret_versions.version is '1, 2, 3… per provider.';
comment on column provider_secret_versions.label is 'The name that a person gave it.';
comment on column provider_secret_versions.set_at is 'When it was set.';
comment on column provider_secret_versions.expires_at is 'When its grace period ends, or its provider was deleted.';
select keep_tenants_apart('provider_secret_versions');
grant select, insert, update, delete on provider_secret_versions to hookledger_worker;
grant select on provider_secret_versions to hookledger_runtime;

create table destinations (
    organization_id uuid not null,
    id uuid not null,
    name text not null,
    url text not null,
    timeout_seconds int,
    concurrency int not null,
    header_names text[] not null,
    original_signature boolean not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    set_at timestamptz not null,
    deleted_at timestamptz,
    applied_position bigint not null,
    primary key (organization_id, id)
);
comment on table destinations is 'Projection: where webhooks are sent.';
comment on column destinations.organization_id is 'The tenant.';
comment on column destinations.id is 'The destination.';
comment on column destinations.name is 'Given by a person.';
comment on column destinations.url is 'Where to.';
comment on column destinations.timeout_seconds is 'How long it may take to answer; null: the deployment''s default.';
comment on column destinations.concurrency is 'Attempts at the same time, per node.';
comment on column destinations.header_names is 'Names of the headers that deliveries carry besides; their values are secrets.';
comment on column destinations.original_signature is 'Deliveries carry the sender''s signature header too.';
comment on column destinations.created_at is 'When it was first set.';
comment on column destinations.updated_at is 'Time of its last change.';
comment on column destinations.set_at is 'When its settings were last changed.';
comment on column destinations.deleted_at is 'When it was deleted, unless set again.';
comment on column destinations.applied_position is 'Position of the last event.';
select keep_tenants_apart('destinations');
grant select, insert, update, delete on destinations to hookledger_worker;
grant select on destinations to hookledger_runtime;

create table destination_secret_versions (
    organization_id uuid not null,
    destination_id uuid not null,
    version int not null,
    set_at timestamptz not null,
    expires_at timestamptz,
    primary key (organization_id, destination_id, version)
);
comment on table destination_secret_versions is 'Projection: what may be known of the secrets that sign deliveries.';
comment on column destination_secret_versions.organization_id is 'The tenant.';
comment on column destination_secret_versions.destination_id is 'Whose deliveries.';
comment on column destination_secret_versions.version is 'Counted with the versions of its headers.';
comment on column destination_secret_versions.set_at is 'When it was set.';
comment on column destination_secret_versions.expires_at is 'Signs no longer from then on.';
select keep_tenants_apart('destination_secret_versions');
grant select, insert, update, delete on destination_secret_versions to hookledger_worker;
grant select on destination_secret_versions to hookledger_runtime;

create table routes (
    organization_id uuid not null,
    id uuid not null,
    provider_id uuid not null,
    destination_id uuid not null,
    name text not null,
    version int not null,
    is_enabled boolean not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    deleted_at timestamptz,
    applied_position bigint not null,
    primary key (organization_id, id)
);
comment on table routes is 'Projection: from which provider to which destination.';
comment on column routes.organization_id is 'The tenant.';
comment on column routes.id is 'The route.';
comment on column routes.provider_id is 'Whose webhooks.';
comment on column routes.destination_id is 'Where they go.';
comment on column routes.name is 'Given by a person.';
comment on column routes.version is 'Counts its changes, from 1.';
comment on column routes.is_enabled is 'New webhooks go by it.';
comment on column routes.created_at is 'When it was first set.';
comment on column routes.updated_at is 'Time of its last change.';
comment on column routes.deleted_at is 'When it or its provider was deleted, unless set again.';
comment on column routes.applied_position is 'Position of the last event.';
-- `routes::of_providers`.
create index routes_of_provider on routes (organization_id, provider_id);
-- `routes::to_destinations`.
create index routes_to_destination on routes (organization_id, destination_id);
select keep_tenants_apart('routes');
grant select, insert, update, delete on routes to hookledger_worker;
grant select on routes to hookledger_runtime;
