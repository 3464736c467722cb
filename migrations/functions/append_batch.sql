-- The optimistic way: units are not told apart. A commit that does not go on where its stream ends raises
-- unique_violation, an organization whose limit not all of the batch fits in HL001; nothing is appended then, and the
-- caller takes the checked way, under the same id.
create or replace function append_batch(
    p_flush uuid, p_clocks timestamptz[], p_partitions int[],
    c_partition int[], c_offset bigint[], c_events int[], c_aggregate_type text[], c_stream_id uuid[],
    c_first_sequence int[], c_organization_id uuid[], c_metadata text[], c_data text[],
    b_partition int[], b_offset bigint[], b_organization_id uuid[], b_webhook_id uuid[], b_headers bytea[], b_body bytea[],
    q_partition int[], q_organization_id uuid[], q_count bigint[], q_limit bigint[], q_since timestamptz[]
) returns flushes
language plpgsql as $$
declare
    flush_ flushes;
    now_ timestamptz;
    -- Partition p is element p + 1.
    heads bigint[];
    times timestamptz[];
    month_ date;
    used_ bigint;
begin
    perform lock_heads(p_partitions);
    -- An earlier try has ended by now: it held the same heads.
    select * into flush_ from flushes f where f.id = p_flush;
    if found then
        return flush_;
    end if;
    now_ := clock_timestamp();
    select array_agg(h.position order by h.partition), array_agg(h.recorded_at order by h.partition)
    into heads, times from log_heads h;
    perform check_clock(now_, p_clocks || times);
    flush_ := row (p_flush, now_, false, heads, '{}', '{}', '{}', '{}');

    for n in 1 .. cardinality(q_partition) loop
        month_ := month_of(greatest(times[q_partition[n] + 1], now_));
        used_ := used_in_month(q_partition[n], q_organization_id[n], month_, q_since[n], now_);
        if used_ is null or used_ + q_count[n] > q_limit[n] then
            raise exception 'the monthly limit of an organization is reached' using errcode = 'HL001';
        end if;
        used_ := used_ + q_count[n];
        update monthly_counters c set accepted = used_
        where c.organization_id = q_organization_id[n] and c.month = month_;
        flush_.organizations := flush_.organizations || q_organization_id[n];
        flush_.months := flush_.months || month_;
        flush_.used := flush_.used || used_;
    end loop;

    insert into commits (partition, position, events, aggregate_type, stream_id, first_sequence,
                         organization_id, recorded_at, metadata, data)
    select c.partition, heads[c.partition + 1] + c.offset_, c.events, c.aggregate_type, c.stream_id, c.first_sequence,
           c.organization_id, greatest(times[c.partition + 1], now_), c.metadata, c.data
    from (select unnest(c_partition) as partition, unnest(c_offset) as offset_, unnest(c_events) as events,
                 unnest(c_aggregate_type) as aggregate_type, unnest(c_stream_id) as stream_id,
                 unnest(c_first_sequence) as first_sequence, unnest(c_organization_id) as organization_id,
                 unnest(c_metadata) as metadata, unnest(c_data) as data) c;

    -- The key refuses a second beginning of a stream. It does not see a sequence within a commit, or one after the end.
    if exists (
        select from (select unnest(c_stream_id) as stream_id, unnest(c_aggregate_type) as aggregate_type,
                            unnest(c_first_sequence) as first_sequence) c
        where c.first_sequence > 1 and c.first_sequence is distinct from (
            select x.first_sequence + x.events from commits x
            where x.stream_id = c.stream_id and x.aggregate_type = c.aggregate_type
              and x.first_sequence < c.first_sequence
            order by x.first_sequence desc limit 1))
    then
        raise unique_violation using message = 'a commit does not begin where its stream ends';
    end if;

    insert into webhook_bodies (organization_id, position, webhook_id, headers, body)
    select b.organization_id, heads[b.partition + 1] + b.offset_, b.webhook_id, b.headers, b.body
    from (select unnest(b_organization_id) as organization_id, unnest(b_partition) as partition,
                 unnest(b_offset) as offset_, unnest(b_webhook_id) as webhook_id,
                 unnest(b_headers) as headers, unnest(b_body) as body) b;

    insert into flushes select flush_.*;
    return flush_;
end
$$;
comment on function append_batch is 'Appends a flush without telling its units apart.';
