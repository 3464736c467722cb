-- The head of a partition is its last event, and appends to it take turns by an advisory lock. A row of
-- its own was updated by every flush: under a long snapshot (pg_dump, a check) its dead versions
-- could not go, and each flush read all of them, so that it took longer with every second.
-- Whoever appends meanwhile waits here, and goes on with the functions below.
lock table log_heads in access exclusive mode;
drop table log_heads;

-- As whoever asks: row-level security holds for the owner too.
create view log_heads with (security_invoker = true) as
select p.partition, coalesce(e.position, 0) as position, coalesce(e.recorded_at, '-infinity') as recorded_at
from generate_series(0, 15) as p (partition)
left join lateral (
    select x.position, x.recorded_at from events x
    where x.partition = p.partition order by x.position desc limit 1) e on true;
comment on view log_heads is 'The last event of each partition.';
comment on column log_heads.partition is 'One of 16.';
comment on column log_heads.position is 'Position of the last event, 0 in an empty partition.';
comment on column log_heads.recorded_at is 'Time of the last event; the next is not earlier.';
grant select on log_heads to hookledger_worker;

-- In ascending order, so that those who append never deadlock. What is read of the partitions is read in
-- a later statement, whose snapshot is younger than the lock.
create function lock_heads(p_partitions int[]) returns void
language plpgsql as $$
begin
    perform pg_advisory_xact_lock(7307, p.partition)
    from (select unnest(p_partitions) as partition order by 1) p;
end
$$;
comment on function lock_heads is 'Until the transaction ends, nobody else appends to these partitions.';
