//! Changes to the log that only a superuser can make.

/// Lets the log and the ledger be changed.
pub const UNLOCKED: &str = "
    do $$
    declare
        guard record;
    begin
        for guard in select tgrelid::regclass as guarded, tgname from pg_trigger where tgname like '%\\_are\\_immutable' loop
            execute format('alter table %s disable trigger %I', guard.guarded, guard.tgname);
        end loop;
    end
    $$";

/// Makes a commit of each event, so that the view `events` can be changed event by event.
pub const WRITABLE: &str = "
    create temporary table several as select * from events where (partition, first_position) in (
        select partition, position from commits where events > 1);
    delete from commits where events > 1;
    insert into commits (partition, position, events, aggregate_type, stream_id, first_sequence, organization_id,
                         recorded_at, metadata, data)
    select partition, position, 1, aggregate_type, stream_id, sequence, organization_id, recorded_at, metadata::text,
           concat_ws(E'\\t', event_type, event_version, payload::text)
    from several;
    create function write_event() returns trigger language plpgsql as $$
    begin
        if tg_op = 'DELETE' then
            delete from commits where partition = old.partition and position = old.position;
            return old;
        end if;
        update commits
        set partition = new.partition, position = new.position, aggregate_type = new.aggregate_type,
            stream_id = new.aggregate_id::uuid, first_sequence = new.sequence, organization_id = new.organization_id,
            recorded_at = new.recorded_at, metadata = new.metadata::text,
            data = concat_ws(E'\\t', new.event_type, new.event_version, new.payload::text)
        where partition = old.partition and position = old.position;
        return new;
    end
    $$;
    create trigger writes_events instead of update or delete on events for each row execute function write_event()";
