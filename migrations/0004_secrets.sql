-- Ciphertexts under a master key. The log names a secret by ID and version and never holds it.
create table provider_secrets (
    organization_id uuid not null,
    secret_id uuid not null,
    owner_id uuid not null,
    version int not null,
    key_id text not null,
    nonce bytea not null,
    ciphertext bytea not null,
    created_at timestamptz not null default now(),
    primary key (organization_id, secret_id)
);
comment on table provider_secrets is 'Secrets of providers and destinations, AES-256-GCM under a master key.';
comment on column provider_secrets.organization_id is 'The tenant; bound into the ciphertext.';
comment on column provider_secrets.secret_id is 'The id by which events name this secret.';
comment on column provider_secrets.owner_id is 'The provider or destination whose secret it is; bound into the ciphertext.';
comment on column provider_secrets.version is '1, 2, 3… per owner; bound into the ciphertext.';
comment on column provider_secrets.key_id is 'Which master key encrypted it.';
comment on column provider_secrets.nonce is 'Random 96 bits.';
comment on column provider_secrets.ciphertext is 'Ciphertext and tag.';
comment on column provider_secrets.created_at is 'When it was set.';
select keep_tenants_apart('provider_secrets');
grant select, insert on provider_secrets to hookledger_worker;

create table platform_secrets (
    name text not null,
    key_id text not null,
    nonce bytea not null,
    ciphertext bytea not null,
    primary key (name)
);
comment on table platform_secrets is 'Random keys of the platform itself, encrypted like those of providers.';
comment on column platform_secrets.name is 'What the key is for, like email-claims.';
comment on column platform_secrets.key_id is 'Which master key encrypted it.';
comment on column platform_secrets.nonce is 'Random 96 bits.';
comment on column platform_secrets.ciphertext is 'Ciphertext and tag.';
grant select, insert on platform_secrets to hookledger_worker;

-- Each master key proves itself by its own row: a stored secret that cannot be opened then stops only its provider.
create table master_key_checks (
    key_id text not null,
    nonce bytea not null,
    ciphertext bytea not null,
    primary key (key_id)
);
comment on table master_key_checks is 'One row for each master key that was ever configured; only that key opens it.';
comment on column master_key_checks.key_id is 'Id of the master key.';
comment on column master_key_checks.nonce is 'Random 96 bits.';
comment on column master_key_checks.ciphertext is 'Ciphertext and tag of nothing secret.';
grant select, insert on master_key_checks to hookledger_worker;
