create or replace function note_when_due_was_set() returns trigger
language plpgsql as $$
begin
    new.due_set_at := now();
    return new;
end
$$;
comment on function note_when_due_was_set is 'Notes what the clock said when a due time was set.';
