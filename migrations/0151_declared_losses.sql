-- What was declared to be lost of the ledger: after a promotion or a restore the log is shorter than what
-- was signed, or goes on otherwise. Each note is signed and names the heads that it excuses, one by one.
create table ledger_losses (
    ledger_id uuid not null,
    declared_at timestamptz not null,
    part int not null,
    note text not null,
    primary key (ledger_id, declared_at, part)
);
comment on table ledger_losses is 'Signed declarations of lost events.';
comment on column ledger_losses.ledger_id is 'As in ledger_trees.';
comment on column ledger_losses.declared_at is 'As the note says.';
comment on column ledger_losses.part is 'One of several notes where one would be too long.';
comment on column ledger_losses.note is 'The note as it was signed.';

create trigger ledger_losses_are_immutable
    before update or delete or truncate on ledger_losses
    for each statement execute function refuse_rewriting_history();
select keep_tenants_apart('ledger_losses', 'ledger_id');
grant select, insert on ledger_losses to hookledger_worker;
grant select on ledger_losses to hookledger_runtime;
