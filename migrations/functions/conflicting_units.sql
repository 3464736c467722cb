-- A commit has to begin where its stream ends: where the last commit in the log ends, or an earlier one of this call.
-- One that begins with sequence 0 goes to the end of its stream and is never in conflict.
create or replace function conflicting_units(
    p_left_out int[], c_unit int[], c_events int[], c_stream_id uuid[], c_aggregate_type text[], c_first_sequence int[]
) returns int[]
language plpgsql as $$
declare
    conflicting int[] := '{}';
    more int[];
    next_sequences int[];
begin
    next_sequences := array(
        select case when c.first_sequence > 0 then coalesce((
                   select x.first_sequence + x.events from commits x
                   where x.stream_id = c.stream_id and x.aggregate_type = c.aggregate_type
                   order by x.first_sequence desc limit 1), 1) end
        from unnest(c_stream_id, c_aggregate_type, c_first_sequence) with ordinality
             as c (stream_id, aggregate_type, first_sequence, ordinal)
        order by c.ordinal);
    -- A commit that follows one that is left out is in conflict, too.
    loop
        more := array(
            with c as materialized (
                select c.*, row_number() over (partition by c.stream_id, c.aggregate_type, c.first_sequence
                                               order by c.ordinal) as n
                from unnest(c_unit, c_events, c_stream_id, c_aggregate_type, c_first_sequence, next_sequences)
                     with ordinality
                     as c (unit, events, stream_id, aggregate_type, first_sequence, next_sequence, ordinal)
                where c.first_sequence > 0 and c.unit <> all (p_left_out) and c.unit <> all (conflicting)
            )
            select distinct c.unit from c
            where c.n > 1 or c.first_sequence < c.next_sequence
               or c.first_sequence > c.next_sequence and not exists (
                      select from c b
                      where b.stream_id = c.stream_id and b.aggregate_type = c.aggregate_type
                        and b.first_sequence + b.events = c.first_sequence and b.ordinal < c.ordinal));
        exit when more = '{}';
        conflicting := conflicting || more;
    end loop;
    return conflicting;
end
$$;
comment on function conflicting_units is 'Units of a call, but for those left out, that do not go on where their streams end.';
