-- A clock that is wrong once would stay in the log for good, since time never goes backwards there. So the
-- database's clock is believed only where another one agrees to within 5 minutes: a last event, or
-- what the node knows of time.
create or replace function check_clock(p_now timestamptz, p_witnesses timestamptz[]) returns void
language plpgsql as $$
begin
    if not exists (
        select from unnest(p_witnesses) as w (time_)
        where w.time_ between p_now - interval '5 min' and p_now + interval '5 min')
    then
        raise exception 'the database''s clock says %, which neither the last event (%) nor the node''s clock (%) agrees with',
            p_now, (select max(w.time_) from unnest(p_witnesses[2:]) as w (time_)), p_witnesses[1]
            using errcode = 'HL002';
    end if;
end
$$;
comment on function check_clock is 'Raises HL002 where no witness agrees with the database''s clock; the first is the node''s.';
