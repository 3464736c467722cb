-- What was accepted before it could be verified: few rows, which the verifier looks for.
create index events_unverified on events (recorded_at, partition, position)
    where event_type = 'webhook.received_unverified';
