-- Bodies are found by the position of their webhook's first event instead of by its id: ids are
-- random, so that every answer waited for another leaf of the index, and for its full image in the
-- write-ahead log after each checkpoint. Positions come in order.
alter table webhook_bodies add column position bigint;
comment on column webhook_bodies.position is 'Position of the webhook''s first event, in its organization''s partition.';
comment on column webhook_bodies.webhook_id is 'The webhook, accepted or rejected; found by way of its first event.';

update webhook_bodies b set position = e.position
from events e
where e.aggregate_id = b.webhook_id::text and e.aggregate_type = 'webhook' and e.sequence = 1
  and e.organization_id = b.organization_id;

alter table webhook_bodies
    alter column position set not null,
    drop constraint webhook_bodies_pkey,
    add primary key (organization_id, position);
