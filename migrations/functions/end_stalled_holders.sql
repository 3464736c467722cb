-- Transactions of a follower hold an advisory lock of their follower. A node that stalls inside one, or is cut
-- off, keeps its row locks while its successor holds the lease and can write nothing: so the successor ends that
-- session. As the owner of the sessions, and of this follower's alone; only for who holds the lease now.
create or replace function end_stalled_holders(name_ text, epoch_ bigint) returns bigint
language sql volatile security definer set search_path from current as $$
    select count(*) filter (where pg_catalog.pg_terminate_backend(l.pid))
    from pg_catalog.pg_locks l
    where l.locktype = 'advisory' and l.granted
      and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
      and l.classid = 7308::oid and l.objid = pg_catalog.hashtext(name_)::oid and l.objsubid = 2
      and l.pid <> pg_catalog.pg_backend_pid()
      and exists (select from followers f where f.name = name_ and f.epoch = epoch_)
$$;
comment on function end_stalled_holders is 'Ends the sessions of earlier holders of a lease that are inside a transaction still.';
revoke all on function end_stalled_holders from public;
grant execute on function end_stalled_holders to hookledger_worker;
