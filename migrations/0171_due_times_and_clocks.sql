-- When the database's clock jumps ahead and back, what became due meanwhile would wait for the clock to come there
-- again. So each row knows what the clock said when its due time was set: one that was set later than now was set by
-- a clock that was ahead. A trigger notes it, since every statement on the queue sets due times.
alter table webhook_due add column due_set_at timestamptz;
comment on column webhook_due.due_set_at is 'What the clock said when due_at was set; null where an earlier release set it.';

create function note_when_due_was_set() returns trigger
language plpgsql as $$
begin
    new.due_set_at := now();
    return new;
end
$$;
comment on function note_when_due_was_set is 'Notes what the clock said when a due time was set.';
create trigger webhook_due_set before insert or update of due_at on webhook_due
    for each row execute function note_when_due_was_set();
