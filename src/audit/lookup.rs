//! Reads of the ledger: tiles for a tree of some size, locations of leaves and events, and checkpoints. Each
//! answer is one statement, so that it sees one state while trees grow.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

use super::store::{StoreError, bigint, count};
use super::tree::{Hash, SizedTile, TILE_WIDTH, TileId, hashes_from_bytes};
use super::{LedgerId, positions};

/// A signed head.
#[derive(Clone, Debug, PartialEq)]
pub struct Signed {
    pub ledger: LedgerId,
    pub size: u64,
    pub root: Hash,
    /// Position of the last leaf's event.
    pub last: i64,
    pub signed_at: DateTime<Utc>,
    /// The signed note.
    pub note: String,
}

/// A leaf, and its event's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub index: u64,
    pub position: i64,
}

/// The existing tiles among those requested, each with at least the requested number of hashes.
pub async fn tiles(
    executor: impl PgExecutor<'_>,
    ledger: LedgerId,
    wanted: &[SizedTile],
) -> Result<HashMap<TileId, Vec<Hash>>, StoreError> {
    let levels: Vec<i16> = wanted.iter().map(|tile| i16::from(tile.id.level)).collect();
    let indexes: Vec<i64> = wanted.iter().map(|tile| bigint(tile.id.index)).collect();
    let is_partial = |tile: &&SizedTile| tile.id.level > 0 && tile.width < TILE_WIDTH;
    let (inner_levels, inner_indexes): (Vec<i16>, Vec<i64>) =
        wanted.iter().filter(is_partial).map(|tile| (i16::from(tile.id.level), bigint(tile.id.index))).unzip();
    // A partial tile consists of pieces: of tails at level 0, of the roots of full tiles above.
    let rows: Vec<(i16, i64, Vec<u8>)> = sqlx::query_as(
        "select level, index, hashes from (
             select 0 as kind, t.level, t.index, t.index as part, t.hashes
             from unnest($2::smallint[], $3::bigint[]) as n (level, index)
             join ledger_tiles t on t.ledger_id = $1 and t.level = n.level and t.index = n.index
             union all
             select 1, 0::smallint, t.first_index / $6, t.first_index, t.hashes
             from ledger_tails t where t.ledger_id = $1
             union all
             select 2, n.level, n.index, t.index, t.root
             from unnest($4::smallint[], $5::bigint[]) as n (level, index)
             join ledger_tiles t on t.ledger_id = $1 and t.level = n.level - 1
                  and t.index >= n.index * $6 and t.index < (n.index + 1) * $6
         ) as pieces order by kind, level, index, part",
    )
    .bind(ledger.uuid())
    .bind(levels)
    .bind(indexes)
    .bind(inner_levels)
    .bind(inner_indexes)
    .bind(bigint(TILE_WIDTH as u64))
    .fetch_all(executor)
    .await?;
    let mut tiles: HashMap<TileId, Vec<Hash>> = HashMap::new();
    for (level, index, hashes) in rows {
        let corrupt = StoreError::Corrupt { table: "ledger_tiles", ledger, what: "they are no hashes" };
        let hashes = hashes_from_bytes(&hashes).ok_or(corrupt)?;
        let id = TileId { level: u8::try_from(level).unwrap_or(u8::MAX), index: count(index) };
        let tile = tiles.entry(id).or_default();
        // A full tile comes first; its pieces, if they are read as well, add nothing.
        if tile.len() < TILE_WIDTH {
            tile.extend(hashes);
        }
    }
    Ok(tiles)
}

/// The leaf of the event at a position; `None` if that event is not in the tree.
pub async fn leaf_at(
    executor: impl PgExecutor<'_>,
    ledger: LedgerId,
    position: i64,
) -> Result<Option<Place>, StoreError> {
    let row: Option<(i64, i64, Vec<u8>)> = sqlx::query_as(
        "select first_index, first_position, positions from (
             (select index * $3 as first_index, first_position, positions from ledger_tiles
              where ledger_id = $1 and level = 0 and first_position <= $2 order by first_position desc limit 1)
             union all
             (select first_index, first_position, positions from ledger_tails
              where ledger_id = $1 and first_position <= $2 order by first_index desc limit 1)
         ) as pieces order by first_index desc limit 1",
    )
    .bind(ledger.uuid())
    .bind(position)
    .bind(bigint(TILE_WIDTH as u64))
    .fetch_optional(executor)
    .await?;
    let Some((first, first_position, bytes)) = row else { return Ok(None) };
    let at = decode(ledger, first_position, &bytes)?;
    Ok(at.binary_search(&position).ok().map(|behind| Place { index: count(first) + behind as u64, position }))
}

/// The leaves of up to 16 tiles from `from` on, with their positions, in order. Fewer do not mean that there
/// are no more: to get all, ask again after the last one.
pub async fn places(executor: impl PgExecutor<'_>, ledger: LedgerId, from: u64) -> Result<Vec<Place>, StoreError> {
    let rows: Vec<(i64, i64, Vec<u8>)> = sqlx::query_as(
        "select first_index, first_position, positions from (
             (select index * $3 as first_index, first_position, positions from ledger_tiles
              where ledger_id = $1 and level = 0 and index >= $2 / $3 order by index limit 16)
             union all
             (select first_index, first_position, positions from ledger_tails
              where ledger_id = $1 and first_index >= ($2 / $3) * $3 order by first_index)
         ) as pieces order by first_index",
    )
    .bind(ledger.uuid())
    .bind(bigint(from))
    .bind(bigint(TILE_WIDTH as u64))
    .fetch_all(executor)
    .await?;
    let (mut places, mut next) = (Vec::new(), None);
    for (first, first_position, bytes) in rows {
        // Tails follow the last tile, unless more than 16 tiles come before them.
        if next.is_some_and(|next| count(first) != next) {
            break;
        }
        let at = decode(ledger, first_position, &bytes)?;
        next = Some(count(first) + at.len() as u64);
        places.extend((count(first)..).zip(at).map(|(index, position)| Place { index, position }));
    }
    places.retain(|place| place.index >= from);
    Ok(places)
}

fn decode(ledger: LedgerId, first: i64, bytes: &[u8]) -> Result<Vec<i64>, StoreError> {
    positions::decode(first, bytes).ok_or(StoreError::Corrupt { table: "ledger_tiles", ledger, what: "no positions" })
}

type Row = (i64, Vec<u8>, i64, DateTime<Utc>, String);

fn signed(ledger: LedgerId, (size, root, last, signed_at, note): Row) -> Result<Signed, StoreError> {
    let corrupt = StoreError::Corrupt { table: "ledger_checkpoints", ledger, what: "the root is no hash" };
    let root = root.try_into().map(Hash).map_err(|_| corrupt)?;
    Ok(Signed { ledger, size: count(size), root, last, signed_at, note })
}

/// The latest checkpoint of a tree, or the one with exactly this size.
pub async fn checkpoint(
    executor: impl PgExecutor<'_>,
    ledger: LedgerId,
    size: Option<u64>,
) -> Result<Option<Signed>, StoreError> {
    let row: Option<Row> = sqlx::query_as(
        "select size, root, last_position, signed_at, note from ledger_checkpoints
         where ledger_id = $1 and ($2::bigint is null or size = $2) order by size desc limit 1",
    )
    .bind(ledger.uuid())
    .bind(size.map(bigint))
    .fetch_optional(executor)
    .await?;
    row.map(|row| signed(ledger, row)).transpose()
}

/// Checkpoints with more leaves than `size`, the smallest first.
pub async fn checkpoints_after(
    executor: impl PgExecutor<'_>,
    ledger: LedgerId,
    size: u64,
    limit: i64,
) -> Result<Vec<Signed>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "select size, root, last_position, signed_at, note from ledger_checkpoints
         where ledger_id = $1 and size > $2 order by size limit $3",
    )
    .bind(ledger.uuid())
    .bind(bigint(size))
    .bind(limit)
    .fetch_all(executor)
    .await?;
    rows.into_iter().map(|row| signed(ledger, row)).collect()
}
