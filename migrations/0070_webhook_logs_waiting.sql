-- Who looks for webhooks that were forgotten needs those that wait for a retry by when it is due.
create index webhook_logs_waiting on webhook_logs (next_retry_at, webhook_id) where next_retry_at is not null;
