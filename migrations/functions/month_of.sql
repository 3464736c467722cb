create or replace function month_of(p_time timestamptz) returns date
language sql immutable
return date_trunc('month', p_time at time zone 'UTC')::date;
comment on function month_of is 'First day of the month, UTC.';
