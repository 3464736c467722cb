//! The tables of the ledger: trees, tiles, tails and checkpoints.

use std::collections::{BTreeMap, HashMap};

use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::growing::{Changes, Growing};
use super::lookup::Signed;
use super::tree::{Edge, Hash, TILE_WIDTH, hashes_from_bytes, hashes_to_bytes};
use super::{LedgerId, positions};
use crate::log::follow::HandlerError;

/// The current head of a tree, signed or not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    pub ledger: LedgerId,
    pub size: u64,
    pub last: i64,
    pub root: Hash,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    #[error("{table}: the rows of the tree {ledger} are inconsistent: {what}")]
    Corrupt { table: &'static str, ledger: LedgerId, what: &'static str },
}

impl From<StoreError> for HandlerError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Database(error) => error.into(),
            StoreError::Corrupt { .. } => Self::Unappliable(error.to_string()),
        }
    }
}

/// Numbers of leaves always fit into PostgreSQL's bigint.
pub(super) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// The current trees. Those without a leaf are empty.
pub(super) async fn load(
    connection: &mut PgConnection,
    ledgers: &[LedgerId],
) -> Result<BTreeMap<LedgerId, Growing>, StoreError> {
    let heads = heads(&mut *connection, ledgers).await?;
    let mut tails = tails(&mut *connection, ledgers).await?;
    let mut inner = inner_hashes(&mut *connection, &heads).await?;
    let mut trees: BTreeMap<_, _> = ledgers.iter().map(|ledger| (*ledger, Growing::default())).collect();
    for head in heads {
        let (leaves, positions) = tails.remove(&head.ledger).unwrap_or_default();
        let mut partial = inner.remove(&head.ledger).unwrap_or_default();
        if partial.is_empty() {
            partial.push(Vec::new());
        }
        partial[0] = leaves;
        let corrupt = |what| StoreError::Corrupt { table: "ledger_tiles", ledger: head.ledger, what };
        let edge = Edge::restore(head.size, partial).map_err(|_| corrupt("tiles or tails are missing"))?;
        if edge.root() != head.root || positions.len() != edge.partial(0).len() {
            return Err(corrupt("they are not what the root in ledger_trees was made of"));
        }
        trees.insert(head.ledger, Growing { edge, positions, last: head.last });
    }
    Ok(trees)
}

type HeadRow = (Uuid, i64, i64, Vec<u8>);

fn head((ledger, size, last, root): HeadRow) -> Result<Head, StoreError> {
    let ledger = LedgerId::from_uuid(ledger);
    let corrupt = StoreError::Corrupt { table: "ledger_trees", ledger, what: "the root is no hash" };
    let root = root.try_into().map(Hash).map_err(|_| corrupt)?;
    Ok(Head { ledger, size: count(size), last, root })
}

async fn heads(executor: impl PgExecutor<'_>, ledgers: &[LedgerId]) -> Result<Vec<Head>, StoreError> {
    let ids: Vec<Uuid> = ledgers.iter().map(|ledger| ledger.uuid()).collect();
    let rows: Vec<HeadRow> =
        sqlx::query_as("select ledger_id, size, last_position, root from ledger_trees where ledger_id = any ($1)")
            .bind(ids)
            .fetch_all(executor)
            .await?;
    rows.into_iter().map(head).collect()
}

/// The head of one tree; `None` without a leaf.
pub async fn head_of(executor: impl PgExecutor<'_>, ledger: LedgerId) -> Result<Option<Head>, StoreError> {
    Ok(heads(executor, &[ledger]).await?.pop())
}

/// The leaves outside of full tiles, and their positions.
type Leaves = (Vec<Hash>, Vec<i64>);

async fn tails(executor: impl PgExecutor<'_>, ledgers: &[LedgerId]) -> Result<HashMap<LedgerId, Leaves>, StoreError> {
    let ids: Vec<Uuid> = ledgers.iter().map(|ledger| ledger.uuid()).collect();
    let rows: Vec<(Uuid, i64, Vec<u8>, Vec<u8>)> = sqlx::query_as(
        "select ledger_id, first_position, hashes, positions from ledger_tails
         where ledger_id = any ($1) order by ledger_id, first_index",
    )
    .bind(ids)
    .fetch_all(executor)
    .await?;
    let mut tails: HashMap<LedgerId, Leaves> = HashMap::new();
    for (ledger, first, hashes, places) in rows {
        let ledger = LedgerId::from_uuid(ledger);
        let corrupt = |what| StoreError::Corrupt { table: "ledger_tails", ledger, what };
        let (all, at) = tails.entry(ledger).or_default();
        all.extend(hashes_from_bytes(&hashes).ok_or_else(|| corrupt("they are no hashes"))?);
        at.extend(positions::decode(first, &places).ok_or_else(|| corrupt("they have no positions"))?);
    }
    Ok(tails)
}

/// By tree, the hashes of the partial tiles above the leaves: the roots of the full tiles below.
async fn inner_hashes(
    executor: impl PgExecutor<'_>,
    heads: &[Head],
) -> Result<HashMap<LedgerId, Vec<Vec<Hash>>>, StoreError> {
    let (mut ids, mut levels, mut from, mut to) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for head in heads {
        for tile in Edge::partial_tiles(head.size).filter(|tile| tile.id.level > 0) {
            let first = tile.id.index * TILE_WIDTH as u64;
            ids.push(head.ledger.uuid());
            levels.push(i16::from(tile.id.level - 1));
            from.push(bigint(first));
            to.push(bigint(first + tile.width as u64));
        }
    }
    let mut hashes: HashMap<LedgerId, Vec<Vec<Hash>>> = HashMap::new();
    if ids.is_empty() {
        return Ok(hashes);
    }
    let rows: Vec<(Uuid, i16, Vec<u8>)> = sqlx::query_as(
        "select t.ledger_id, t.level, t.root
         from unnest($1::uuid[], $2::smallint[], $3::bigint[], $4::bigint[]) as n (ledger_id, level, from_, to_)
         join ledger_tiles t
           on t.ledger_id = n.ledger_id and t.level = n.level and t.index >= n.from_ and t.index < n.to_
         order by t.ledger_id, t.level, t.index",
    )
    .bind(ids)
    .bind(levels)
    .bind(from)
    .bind(to)
    .fetch_all(executor)
    .await?;
    for (ledger, level, root) in rows {
        let ledger = LedgerId::from_uuid(ledger);
        let corrupt = StoreError::Corrupt { table: "ledger_tiles", ledger, what: "a root is no hash" };
        let root = root.try_into().map(Hash).map_err(|_| corrupt)?;
        let level = usize::from(level.unsigned_abs()) + 1;
        let levels = hashes.entry(ledger).or_default();
        if levels.len() <= level {
            levels.resize_with(level + 1, Vec::new);
        }
        levels[level].push(root);
    }
    Ok(hashes)
}

/// Writes the changes of a batch. Returns false if a tree has changed since it was read; the transaction must
/// not be committed then.
pub(super) async fn write(connection: &mut PgConnection, changes: &Changes) -> Result<bool, StoreError> {
    if !write_heads(&mut *connection, changes).await? {
        return Ok(false);
    }
    write_tiles(&mut *connection, changes).await?;
    write_tails(connection, changes).await?;
    Ok(true)
}

async fn write_heads(connection: &mut PgConnection, changes: &Changes) -> Result<bool, StoreError> {
    let (new, old): (Vec<_>, Vec<_>) = changes.grown.iter().partition(|grown| grown.from == 0);
    for (grown, sql) in [
        (
            new,
            "insert into ledger_trees (ledger_id, size, last_position, root, grown_at)
             select ledger_id, size, last_position, root, now()
             from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[])
                  as n (ledger_id, from_, size, last_position, root)
             where n.from_ = 0 on conflict do nothing",
        ),
        (
            old,
            "update ledger_trees t
             set size = n.size, last_position = n.last_position, root = n.root, grown_at = now()
             from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[])
                  as n (ledger_id, from_, size, last_position, root)
             where t.ledger_id = n.ledger_id and t.size = n.from_",
        ),
    ] {
        if grown.is_empty() {
            continue;
        }
        let written = sqlx::query(sql)
            .bind(grown.iter().map(|grown| grown.ledger.uuid()).collect::<Vec<_>>())
            .bind(grown.iter().map(|grown| bigint(grown.from)).collect::<Vec<_>>())
            .bind(grown.iter().map(|grown| bigint(grown.size)).collect::<Vec<_>>())
            .bind(grown.iter().map(|grown| grown.last).collect::<Vec<_>>())
            .bind(grown.iter().map(|grown| grown.root.0.to_vec()).collect::<Vec<_>>())
            .execute(&mut *connection)
            .await?;
        if written.rows_affected() != grown.len() as u64 {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn write_tiles(connection: &mut PgConnection, changes: &Changes) -> Result<(), StoreError> {
    let tiles = &changes.tiles;
    if tiles.is_empty() {
        return Ok(());
    }
    let first = |positions: &Option<Vec<i64>>| positions.as_ref().and_then(|positions| positions.first().copied());
    sqlx::query(
        "insert into ledger_tiles (ledger_id, level, index, root, hashes, first_position, positions)
         select * from unnest($1::uuid[], $2::smallint[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bigint[],
                              $7::bytea[])",
    )
    .bind(tiles.iter().map(|tile| tile.ledger.uuid()).collect::<Vec<_>>())
    .bind(tiles.iter().map(|new| i16::from(new.tile.id.level)).collect::<Vec<_>>())
    .bind(tiles.iter().map(|new| bigint(new.tile.id.index)).collect::<Vec<_>>())
    .bind(tiles.iter().map(|new| new.tile.root.0.to_vec()).collect::<Vec<_>>())
    .bind(tiles.iter().map(|new| hashes_to_bytes(&new.tile.hashes)).collect::<Vec<_>>())
    .bind(tiles.iter().map(|new| first(&new.positions)).collect::<Vec<_>>())
    .bind(tiles.iter().map(|new| new.positions.as_deref().map(positions::encode)).collect::<Vec<_>>())
    .execute(&mut *connection)
    .await?;
    let filled: Vec<_> = changes.grown.iter().filter(|grown| grown.from < grown.tail_from).collect();
    sqlx::query(
        "delete from ledger_tails t using unnest($1::uuid[], $2::bigint[]) as n (ledger_id, tail_from)
         where t.ledger_id = n.ledger_id and t.first_index < n.tail_from",
    )
    .bind(filled.iter().map(|grown| grown.ledger.uuid()).collect::<Vec<_>>())
    .bind(filled.iter().map(|grown| bigint(grown.tail_from)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_tails(connection: &mut PgConnection, changes: &Changes) -> Result<(), StoreError> {
    let tails = &changes.tails;
    if tails.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into ledger_tails (ledger_id, first_index, first_position, hashes, positions)
         select * from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bytea[], $5::bytea[])",
    )
    .bind(tails.iter().map(|tail| tail.ledger.uuid()).collect::<Vec<_>>())
    .bind(tails.iter().map(|tail| bigint(tail.first)).collect::<Vec<_>>())
    .bind(tails.iter().map(|tail| tail.positions.first().copied().unwrap_or_default()).collect::<Vec<_>>())
    .bind(tails.iter().map(|tail| hashes_to_bytes(&tail.hashes)).collect::<Vec<_>>())
    .bind(tails.iter().map(|tail| positions::encode(&tail.positions)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// The heads that have grown since they were signed, the ones that grew first being first; none unless `node`
/// has the lease of that follower.
pub(super) async fn unsigned(
    executor: impl PgExecutor<'_>,
    follower: &str,
    node: Uuid,
    limit: i64,
) -> Result<Vec<Head>, StoreError> {
    let rows: Vec<HeadRow> = sqlx::query_as(
        "select t.ledger_id, t.size, t.last_position, t.root from ledger_trees t
         where not exists (select from ledger_checkpoints c where c.ledger_id = t.ledger_id and c.size = t.size)
           and exists (select from followers f where f.name = $1 and f.owner = $2 and f.lease_until > now())
         order by t.grown_at limit $3",
    )
    .bind(follower)
    .bind(node)
    .bind(limit)
    .fetch_all(executor)
    .await?;
    rows.into_iter().map(head).collect()
}

/// Stores checkpoints. An existing one of the same size stays.
pub(crate) async fn keep(executor: impl PgExecutor<'_>, signed: &[Signed]) -> Result<(), StoreError> {
    sqlx::query(
        "insert into ledger_checkpoints (ledger_id, size, root, last_position, signed_at, note)
         select * from unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::bigint[], $5::timestamptz[], $6::text[])
         on conflict do nothing",
    )
    .bind(signed.iter().map(|signed| signed.ledger.uuid()).collect::<Vec<_>>())
    .bind(signed.iter().map(|signed| bigint(signed.size)).collect::<Vec<_>>())
    .bind(signed.iter().map(|signed| signed.root.0.to_vec()).collect::<Vec<_>>())
    .bind(signed.iter().map(|signed| signed.last).collect::<Vec<_>>())
    .bind(signed.iter().map(|signed| signed.signed_at).collect::<Vec<_>>())
    .bind(signed.iter().map(|signed| signed.note.as_str()).collect::<Vec<_>>())
    .execute(executor)
    .await?;
    Ok(())
}

/// Age in seconds of the oldest event that is in no tree yet.
pub(super) async fn behind(executor: impl PgExecutor<'_>, follower: &str) -> Result<Option<f64>, StoreError> {
    Ok(crate::log::oldest_after_checkpoint(executor, follower).await?)
}
