-- postgres-es compares the aggregate's ID as text, which no index of commits has: it is given this in the place of a
-- table. The planner inlines it.
create or replace function stream_events(p_aggregate_type text, p_aggregate_id text) returns setof events
language sql stable as $$
    select e.* from events e where e.stream_id = p_aggregate_id::uuid and e.aggregate_type = p_aggregate_type
$$;
comment on function stream_events is 'The events of one stream, found by an index.';
