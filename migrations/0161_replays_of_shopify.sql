-- Shopify signs bodies alone, as GitHub does: what came before is known, and what came again is flagged.
comment on column webhook_logs.replay_key is
    'First half of the body''s digest, where the provider signs neither ids nor times; null elsewhere.';

update webhook_logs w set replay_key = left(w.body_sha256, 32)::uuid
from webhook_providers p
where p.organization_id = w.organization_id and p.id = w.provider_id and p.provider_name = 'shopify'
  and w.signature_valid and w.replay_key is null;

update webhook_logs w set suspected_replay = true
from webhook_providers p
where p.organization_id = w.organization_id and p.id = w.provider_id and p.provider_name = 'shopify'
  and w.replay_key is not null and not w.suspected_replay
  and exists (
      select from webhook_logs o
      where o.organization_id = w.organization_id and o.provider_id = w.provider_id
        and o.replay_key = w.replay_key and o.position < w.position);
