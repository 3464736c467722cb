-- The ledger: a Merkle tree over the events of each organization (RFC 6962), in the tiles of C2SP tlog-tiles, and its
-- signed heads. What is full or signed is never changed.
create table ledger_trees (
    ledger_id uuid not null,
    size bigint not null,
    last_position bigint not null,
    root bytea not null,
    grown_at timestamptz not null,
    primary key (ledger_id)
) with (fillfactor = 50);
comment on table ledger_trees is 'How far each tree has grown.';
comment on column ledger_trees.ledger_id is 'The organization; the nil UUID is the platform. 00000000-0000-8000-8000-00000000000N is what lies in partition N outside its organization''s own: claims on e-mail addresses.';
comment on column ledger_trees.size is 'Leaves, one for each event.';
comment on column ledger_trees.last_position is 'Position of the last leaf''s event in its partition.';
comment on column ledger_trees.root is 'Hash over all leaves.';
comment on column ledger_trees.grown_at is 'When the last leaf was added.';
select keep_tenants_apart('ledger_trees', 'ledger_id');
grant select, insert, update on ledger_trees to hookledger_worker;
grant select on ledger_trees to hookledger_runtime;

create table ledger_tiles (
    ledger_id uuid not null,
    level smallint not null,
    index bigint not null,
    root bytea not null,
    hashes bytea not null,
    first_position bigint,
    positions bytea,
    primary key (ledger_id, level, index)
);
comment on table ledger_tiles is 'Full tiles: 256 hashes of height 8 * level.';
comment on column ledger_tiles.ledger_id is 'As in ledger_trees.';
comment on column ledger_tiles.level is '0 is that of the leaves.';
comment on column ledger_tiles.index is '0, 1, 2… within the level.';
comment on column ledger_tiles.root is 'Hash over the tile: one of the hashes of the tile above.';
comment on column ledger_tiles.hashes is '256 hashes of 32 bytes.';
comment on column ledger_tiles.first_position is 'At level 0: position of the first leaf''s event in its partition.';
comment on column ledger_tiles.positions is 'At level 0: how far each leaf''s event is behind the one before, 256 numbers in LEB128, the first of them 0.';
create unique index ledger_tiles_by_position on ledger_tiles (ledger_id, first_position) where level = 0;
-- Hashes do not compress.
alter table ledger_tiles alter column hashes set storage external;
create trigger ledger_tiles_are_immutable
    before update or delete or truncate on ledger_tiles
    for each statement execute function refuse_rewriting_history();
select keep_tenants_apart('ledger_tiles', 'ledger_id');
grant select, insert on ledger_tiles to hookledger_worker;
grant select on ledger_tiles to hookledger_runtime;

create table ledger_tails (
    ledger_id uuid not null,
    first_index bigint not null,
    first_position bigint not null,
    hashes bytea not null,
    positions bytea not null,
    primary key (ledger_id, first_index)
);
comment on table ledger_tails is 'Leaves that do not fill a tile yet, in pieces as they came.';
comment on column ledger_tails.ledger_id is 'As in ledger_trees.';
comment on column ledger_tails.first_index is 'Number of the piece''s first leaf, from 0.';
comment on column ledger_tails.first_position is 'Position of its event.';
comment on column ledger_tails.hashes is 'Hashes of 32 bytes.';
comment on column ledger_tails.positions is 'As in ledger_tiles.';
alter table ledger_tails alter column hashes set storage external;
select keep_tenants_apart('ledger_tails', 'ledger_id');
grant select, insert, delete on ledger_tails to hookledger_worker;
grant select on ledger_tails to hookledger_runtime;

create table ledger_checkpoints (
    ledger_id uuid not null,
    size bigint not null,
    root bytea not null,
    last_position bigint not null,
    signed_at timestamptz not null,
    note text not null,
    primary key (ledger_id, size)
);
comment on table ledger_checkpoints is 'Signed heads of trees (C2SP tlog-checkpoint).';
comment on column ledger_checkpoints.ledger_id is 'As in ledger_trees.';
comment on column ledger_checkpoints.size is 'Leaves of the tree.';
comment on column ledger_checkpoints.root is 'Hash over them.';
comment on column ledger_checkpoints.last_position is 'Position of the last leaf''s event in its partition.';
comment on column ledger_checkpoints.signed_at is 'As the note says.';
comment on column ledger_checkpoints.note is 'The note as it was signed.';
create trigger ledger_checkpoints_are_immutable
    before update or delete or truncate on ledger_checkpoints
    for each statement execute function refuse_rewriting_history();
select keep_tenants_apart('ledger_checkpoints', 'ledger_id');
grant select, insert on ledger_checkpoints to hookledger_worker;
grant select on ledger_checkpoints to hookledger_runtime;

-- After a promotion or a restore the log is shorter than what was signed, or goes on otherwise. Each signed note
-- declares that, and names the heads that it excuses, one by one.
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
