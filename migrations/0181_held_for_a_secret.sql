-- Without a secret nothing is signed, which no attempt is to be used up for.
alter table webhook_due drop constraint webhook_due_held_check;
alter table webhook_due add constraint webhook_due_held_check
    check (held in ('destination_removed', 'provider_deleted', 'provider_disabled', 'organization_disabled',
                    'secret_unreadable')) not valid;
