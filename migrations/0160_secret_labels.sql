-- Secrets that stay beside each other are told apart by a name.
alter table provider_secret_versions add column label text;
comment on column provider_secret_versions.label is 'The name that a person gave it.';
