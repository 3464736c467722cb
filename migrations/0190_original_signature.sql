-- A receiver that verifies with the sender's own library and secret needs the sender's signature.
alter table webhook_providers add column destination_original_signature boolean not null default false;
comment on column webhook_providers.destination_original_signature is 'Deliveries carry the sender''s signature header too.';
