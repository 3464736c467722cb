-- What is suspicious about a webhook, for people to see and to filter by.
alter table webhook_logs
    add column rejection text collate "C",
    add column replay_key uuid,
    add column suspected_replay boolean not null default false;
comment on column webhook_logs.rejection is 'Code of why it was refused, like signature_invalid; null for accepted ones.';
comment on column webhook_logs.replay_key is
    'First half of the body''s digest, where the provider signs bodies but not ids; null elsewhere.';
comment on column webhook_logs.suspected_replay is 'Its body came before, under another id that is not signed.';

create index webhook_logs_replay on webhook_logs (organization_id, provider_id, replay_key)
    where replay_key is not null;
create index webhook_logs_flagged on webhook_logs (organization_id, received_at desc, position desc)
    where suspected_replay or body_differs or rejection = 'transmission_replayed';

update webhook_logs set rejection = split_part(error_message, ':', 1)
where not signature_valid and error_message ~ '^[a-z_]+: ';
