-- How many of the attempts of a minute were retries. What was counted before has none.
alter table webhook_analytics add column retried bigint not null default 0;
comment on column webhook_analytics.retried is 'Attempts that ended and were not the first at their webhook.';
