-- The optimistic way: no stream is looked at. A sequence that is taken already raises unique_violation, an
-- organization whose limit not all of the batch fits in HL001; nothing is appended then, and the
-- caller takes the checked way, under the same id.
create or replace function append_batch(
    p_flush uuid, p_clocks timestamptz[], p_partitions int[],
    e_partition int[], e_offset bigint[], e_aggregate_type text[], e_aggregate_id text[], e_sequence bigint[],
    e_event_type text[], e_event_version text[], e_payload json[], e_metadata json[], e_organization_id uuid[],
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

    insert into events (partition, position, aggregate_type, aggregate_id, sequence,
                        event_type, event_version, payload, metadata, organization_id, recorded_at)
    select e.partition, heads[e.partition + 1] + e.offset_, e.aggregate_type, e.aggregate_id, e.sequence,
           e.event_type, e.event_version, e.payload, e.metadata, e.organization_id,
           greatest(times[e.partition + 1], now_)
    from (select unnest(e_partition) as partition, unnest(e_offset) as offset_,
                 unnest(e_aggregate_type) as aggregate_type, unnest(e_aggregate_id) as aggregate_id,
                 unnest(e_sequence) as sequence, unnest(e_event_type) as event_type,
                 unnest(e_event_version) as event_version, unnest(e_payload) as payload,
                 unnest(e_metadata) as metadata, unnest(e_organization_id) as organization_id) e;

    insert into webhook_bodies (organization_id, position, webhook_id, headers, body)
    select b.organization_id, heads[b.partition + 1] + b.offset_, b.webhook_id, b.headers, b.body
    from (select unnest(b_organization_id) as organization_id, unnest(b_partition) as partition,
                 unnest(b_offset) as offset_, unnest(b_webhook_id) as webhook_id,
                 unnest(b_headers) as headers, unnest(b_body) as body) b;

    insert into flushes select flush_.*;
    return flush_;
end
$$;
comment on function append_batch is 'Appends a flush without looking for conflicts.';
