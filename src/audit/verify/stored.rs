//! Contents of the ledger's tables, for comparison with the log. None of it is trusted: an unreadable row
//! counts as changed.

use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::tree::StoredTile;
use crate::audit::tree::{Hash, TILE_WIDTH, TileId, hashes_from_bytes};
use crate::audit::{LedgerId, positions};

/// Tiles read at once.
const PAGE: i64 = 4;

fn hash(bytes: Vec<u8>) -> Option<Hash> {
    bytes.try_into().ok().map(Hash)
}

type TileRow = (i64, Vec<u8>, Vec<u8>, Option<i64>, Option<Vec<u8>>);

fn tile((index, root, hashes, first, at): TileRow) -> (u64, StoredTile) {
    let positions = first.zip(at).and_then(|(first, at)| positions::decode(first, &at)).unwrap_or_default();
    let hashes = hashes_from_bytes(&hashes).unwrap_or_default();
    (index.unsigned_abs(), StoredTile { hashes, root: hash(root), positions })
}

/// A few full tiles of a level, from an index on.
pub(super) async fn tiles(
    executor: impl PgExecutor<'_>,
    ledger: LedgerId,
    from: TileId,
) -> Result<Vec<(u64, StoredTile)>, sqlx::Error> {
    let rows: Vec<TileRow> = sqlx::query_as(
        "select index, root, hashes, first_position, positions from ledger_tiles
         where ledger_id = $1 and level = $2 and index >= $3 order by index limit $4",
    )
    .bind(ledger.uuid())
    .bind(i16::from(from.level))
    .bind(i64::try_from(from.index).unwrap_or(i64::MAX))
    .bind(PAGE)
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(tile).collect())
}

/// The stored leaves from the beginning of a tile up to a size; fewer if there are not as many.
pub(super) async fn leaves(
    connection: &mut PgConnection,
    ledger: LedgerId,
    from: u64,
    to: u64,
) -> Result<Vec<(i64, Hash)>, sqlx::Error> {
    let (width, mut leaves) = (TILE_WIDTH as u64, Vec::new());
    let mut next = from / width;
    'tiles: while from + (leaves.len() as u64) < to {
        let page = tiles(&mut *connection, ledger, TileId { level: 0, index: next }).await?;
        if page.is_empty() {
            break;
        }
        for (index, tile) in page {
            if index != next || tile.hashes.len() != TILE_WIDTH {
                break 'tiles;
            }
            leaves.extend(with_positions(tile.hashes, tile.positions));
            next += 1;
        }
    }
    if from + (leaves.len() as u64) < to {
        leaves.extend(tail(connection, ledger, next * width).await?);
    }
    leaves.truncate(usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX));
    Ok(leaves)
}

/// The leaves from `from` on that fill no tile.
async fn tail(executor: impl PgExecutor<'_>, ledger: LedgerId, from: u64) -> Result<Vec<(i64, Hash)>, sqlx::Error> {
    let rows: Vec<(i64, i64, Vec<u8>, Vec<u8>)> = sqlx::query_as(
        "select first_index, first_position, hashes, positions from ledger_tails
         where ledger_id = $1 and first_index >= $2 order by first_index",
    )
    .bind(ledger.uuid())
    .bind(i64::try_from(from).unwrap_or(i64::MAX))
    .fetch_all(executor)
    .await?;
    let mut leaves = Vec::new();
    for (first, first_position, hashes, at) in rows {
        if first.unsigned_abs() != from + leaves.len() as u64 {
            break;
        }
        let hashes = hashes_from_bytes(&hashes).unwrap_or_default();
        leaves.extend(with_positions(hashes, positions::decode(first_position, &at).unwrap_or_default()));
    }
    Ok(leaves)
}

/// Drops leaves without a position.
fn with_positions(hashes: Vec<Hash>, positions: Vec<i64>) -> impl Iterator<Item = (i64, Hash)> {
    let positions = positions.into_iter().chain(std::iter::repeat(0));
    positions.zip(hashes)
}

/// Size, last position and root of every tree, according to the tables.
pub(super) async fn heads(
    executor: impl PgExecutor<'_>,
) -> Result<Vec<(LedgerId, u64, i64, Option<Hash>)>, sqlx::Error> {
    let rows: Vec<(Uuid, i64, i64, Vec<u8>)> =
        sqlx::query_as("select ledger_id, size, last_position, root from ledger_trees").fetch_all(executor).await?;
    let head = |(ledger, size, last, root): (Uuid, i64, i64, Vec<u8>)| {
        (LedgerId::from_uuid(ledger), size.unsigned_abs(), last, hash(root))
    };
    Ok(rows.into_iter().map(head).collect())
}

type CheckpointColumns = (i64, Vec<u8>, i64, chrono::DateTime<chrono::Utc>, String);

/// A row with a checkpoint.
#[derive(Debug)]
pub(super) struct CheckpointRow {
    pub(super) size: u64,
    pub(super) root: Option<Hash>,
    pub(super) last: i64,
    pub(super) signed_at: chrono::DateTime<chrono::Utc>,
    pub(super) note: String,
}

/// A page of checkpoints with more leaves than that.
pub(super) async fn checkpoints(
    executor: impl PgExecutor<'_>,
    ledger: LedgerId,
    after: i64,
    limit: i64,
) -> Result<Vec<CheckpointRow>, sqlx::Error> {
    let rows: Vec<CheckpointColumns> = sqlx::query_as(
        "select size, root, last_position, signed_at, note from ledger_checkpoints
         where ledger_id = $1 and size > $2 order by size limit $3",
    )
    .bind(ledger.uuid())
    .bind(after)
    .bind(limit)
    .fetch_all(executor)
    .await?;
    let row = |(size, root, last, signed_at, note): CheckpointColumns| CheckpointRow {
        size: size.unsigned_abs(),
        root: hash(root),
        last,
        signed_at,
        note,
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Trees with a row or a checkpoint.
pub(super) async fn ledgers(executor: impl PgExecutor<'_>) -> Result<Vec<LedgerId>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "select ledger_id from ledger_trees union select distinct ledger_id from ledger_checkpoints",
    )
    .fetch_all(executor)
    .await?;
    Ok(ids.into_iter().map(LedgerId::from_uuid).collect())
}
