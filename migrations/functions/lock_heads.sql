-- In ascending order, so that those who append never deadlock. What is read of the partitions is read in
-- a later statement, whose snapshot is younger than the lock.
create or replace function lock_heads(p_partitions int[]) returns void
language plpgsql as $$
begin
    perform pg_advisory_xact_lock(7307, p.partition)
    from (select unnest(p_partitions) as partition order by 1) p;
end
$$;
comment on function lock_heads is 'Until the transaction ends, nobody else appends to these partitions.';
