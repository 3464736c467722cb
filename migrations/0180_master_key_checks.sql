-- Each master key proves itself by its own row: a stored secret that cannot be opened is then that secret's fault,
-- and stops nobody but its provider.
create table master_key_checks (
    key_id text primary key,
    nonce bytea not null,
    ciphertext bytea not null
);
comment on table master_key_checks is 'One row for each master key that was ever configured; only that key opens it.';
comment on column master_key_checks.key_id is 'Id of the master key.';
comment on column master_key_checks.nonce is 'Random 96 bits.';
comment on column master_key_checks.ciphertext is 'Ciphertext and tag of nothing secret.';

grant select, insert on master_key_checks to hookledger_worker;
