//! The Merkle tree of RFC 6962, stored as tiles of C2SP tlog-tiles: adding leaves, and proofs from tiles.
//!
//! A tile of level L holds up to 256 hashes of height 8·L. Only full tiles are stored; the partial ones at
//! the right edge are in an [`Edge`]. `tlog_tiles` hashes, and creates and checks proofs.

use std::cell::RefCell;
use std::collections::BTreeSet;

use tlog_tiles::tile::Tile;
use tlog_tiles::tlog::{self, EMPTY_HASH, Error, HASH_SIZE, HashReader, node_hash};

pub use tlog_tiles::tlog::Hash;

/// Height of a tile.
pub const TILE_HEIGHT: u8 = 8;
/// Hashes of a full tile.
pub const TILE_WIDTH: usize = 1 << TILE_HEIGHT;

/// The root of a tree without leaves.
pub const EMPTY_ROOT: Hash = EMPTY_HASH;

/// Identifies a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TileId {
    /// 0 for the leaves.
    pub level: u8,
    /// 0, 1, 2… within the level.
    pub index: u64,
}

/// A tile of a tree with some size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SizedTile {
    pub id: TileId,
    /// 1 to 256 hashes.
    pub width: usize,
}

/// A tile that got its last hash.
#[derive(Clone, Debug, PartialEq)]
pub struct FullTile {
    pub id: TileId,
    pub hashes: Vec<Hash>,
    /// The hash over all of them, which is one of the hashes of the tile above.
    pub root: Hash,
}

/// A tree that grows: its size, and its incomplete parts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edge {
    size: u64,
    /// By level, the hashes of the partial tile.
    partial: Vec<Vec<Hash>>,
    /// Roots of the largest complete subtrees, from left to right.
    frontier: Vec<Hash>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    #[error("a tree of {size} leaves has no leaf {index}")]
    NoSuchLeaf { index: u64, size: u64 },
    #[error("a tree of {size} leaves cannot continue one of {from}")]
    NotLater { from: u64, size: u64 },
    #[error("the tile {level}/{index} is missing, or does not have {width} hashes")]
    NoTile { level: u8, index: u64, width: usize },
    #[error("the tiles do not have the signed root")]
    Inconsistent,
    #[error("the proof is invalid")]
    Invalid,
}

impl Edge {
    /// A tree of that size, from the partial tiles of each level, level 0 first.
    ///
    /// # Errors
    /// [`ProofError::NoTile`] if a tile does not have the width that the size requires.
    pub fn restore(size: u64, partial: Vec<Vec<Hash>>) -> Result<Self, ProofError> {
        let mut edge = Self { size, partial, frontier: Vec::new() };
        for tile in Self::partial_tiles(size).rev() {
            let hashes = edge.partial.get(usize::from(tile.id.level)).map(Vec::as_slice).unwrap_or_default();
            if hashes.len() != tile.width {
                return Err(missing(tile));
            }
            let mut rest = hashes;
            while !rest.is_empty() {
                let (subtree, others) = rest.split_at(1 << rest.len().ilog2());
                edge.frontier.push(subtree_root(subtree));
                rest = others;
            }
        }
        Ok(edge)
    }

    /// The partial tiles of a tree with that size, level 0 first. A level whose tiles are all full has none.
    #[must_use]
    pub fn partial_tiles(size: u64) -> impl DoubleEndedIterator<Item = SizedTile> {
        let levels = (0..8_u8).filter_map(move |level| {
            let hashes = size >> (TILE_HEIGHT * level);
            let width = usize::try_from(hashes % TILE_WIDTH as u64).unwrap_or_default();
            (width > 0).then_some(SizedTile { id: TileId { level, index: hashes / TILE_WIDTH as u64 }, width })
        });
        levels.collect::<Vec<_>>().into_iter()
    }

    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hashes of the level's partial tile.
    #[must_use]
    pub fn partial(&self, level: u8) -> &[Hash] {
        self.partial.get(usize::from(level)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Adds a leaf by its hash. Tiles that become full are appended to `full`, lower levels first.
    pub fn push(&mut self, leaf: Hash, full: &mut Vec<FullTile>) {
        self.put(0, leaf);
        // As in binary addition: the new subtree merges with each complete one of the same size to its left.
        let (mut carry, mut height) = (leaf, 0);
        while self.size >> height & 1 == 1 {
            let Some(left) = self.frontier.pop() else { break };
            carry = node_hash(left, carry);
            height += 1;
            if height % TILE_HEIGHT == 0 {
                let level = height / TILE_HEIGHT;
                let index = (self.size + 1) >> height;
                let hashes = std::mem::take(&mut self.partial[usize::from(level - 1)]);
                full.push(FullTile { id: TileId { level: level - 1, index: index - 1 }, hashes, root: carry });
                self.put(level, carry);
            }
        }
        self.frontier.push(carry);
        self.size += 1;
    }

    fn put(&mut self, level: u8, hash: Hash) {
        let level = usize::from(level);
        if self.partial.len() <= level {
            self.partial.resize_with(level + 1, Vec::new);
        }
        self.partial[level].push(hash);
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut subtrees = self.frontier.iter().rev();
        let Some(last) = subtrees.next() else { return EMPTY_ROOT };
        subtrees.fold(*last, |right, left| node_hash(*left, right))
    }
}

/// The root over hashes whose number is a power of two.
fn subtree_root(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => EMPTY_ROOT,
        [one] => *one,
        _ => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            node_hash(subtree_root(left), subtree_root(right))
        }
    }
}

/// The hash of a full tile, which is in the tile above.
#[must_use]
pub fn tile_root(hashes: &[Hash]) -> Option<Hash> {
    (hashes.len() == TILE_WIDTH).then(|| subtree_root(hashes))
}

/// Concatenated hashes, the format of stored and served tiles.
#[must_use]
pub fn hashes_to_bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// The reverse; `None` if the length is not a multiple of a hash's.
#[must_use]
pub fn hashes_from_bytes(bytes: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<HASH_SIZE>();
    rest.is_empty().then(|| hashes.iter().copied().map(Hash).collect())
}

/// A hash in hex or base64.
#[must_use]
pub fn parse_hash(text: &str) -> Option<Hash> {
    if text.len() == 2 * HASH_SIZE {
        return hex::decode(text).ok()?.try_into().ok().map(Hash);
    }
    Hash::parse_hash(text).ok()
}

/// Source of a tree's tiles for proofs.
pub trait Tiles {
    /// The hashes of a tile: at least as many as its width, or `None`.
    fn tile(&self, id: TileId) -> Option<&[Hash]>;
}

impl<S: std::hash::BuildHasher> Tiles for std::collections::HashMap<TileId, Vec<Hash>, S> {
    fn tile(&self, id: TileId) -> Option<&[Hash]> {
        self.get(&id).map(Vec::as_slice)
    }
}

/// A statement to prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    /// This leaf is in the tree.
    Inclusion { index: u64 },
    /// The tree of the first `from` leaves is the beginning of this one.
    Consistency { from: u64 },
}

/// The tiles needed to prove a statement about a tree of that size.
pub fn tiles_to_prove(statement: Statement, size: u64) -> Result<Vec<SizedTile>, ProofError> {
    let asked = Asked::default();
    // The reader only records requests, so the answer is an error or an empty proof.
    let _ = run(statement, size, &asked)?;
    let _ = match statement {
        Statement::Inclusion { index } => asked.read_hashes(&[tlog::stored_hash_index(0, index)]),
        Statement::Consistency { from } => tlog::tree_hash(from, &asked).map(|root| vec![root]),
    };
    Ok(asked.0.into_inner().into_iter().map(|id| SizedTile { id, width: width(id, size) }).collect())
}

/// Proves a statement about the tree of that size and root. The proof is checked, so an error means that the
/// tiles are wrong.
pub fn prove(statement: Statement, size: u64, root: Hash, tiles: &impl Tiles) -> Result<Vec<Hash>, ProofError> {
    for tile in tiles_to_prove(statement, size)? {
        if tiles.tile(tile.id).is_none_or(|hashes| hashes.len() < tile.width) {
            return Err(missing(tile));
        }
    }
    let given = Given(tiles);
    let inconsistent = |_| ProofError::Inconsistent;
    let proof = run(statement, size, &given)?.map_err(inconsistent)?;
    let checked = match statement {
        Statement::Inclusion { index } => {
            let leaf = given.read_hashes(&[tlog::stored_hash_index(0, index)]).map_err(inconsistent)?;
            check_inclusion(&proof, size, root, index, leaf[0])
        }
        Statement::Consistency { from } => {
            let from_root = tlog::tree_hash(from, &given).map_err(inconsistent)?;
            check_consistency(&proof, size, root, from, from_root)
        }
    };
    checked.map_err(|_| ProofError::Inconsistent)?;
    Ok(proof)
}

fn run(statement: Statement, size: u64, reader: &impl HashReader) -> Result<Result<Vec<Hash>, Error>, ProofError> {
    match statement {
        Statement::Inclusion { index } if index >= size => Err(ProofError::NoSuchLeaf { index, size }),
        Statement::Inclusion { index } => Ok(tlog::prove_record(size, index, reader)),
        Statement::Consistency { from } if from > size => Err(ProofError::NotLater { from, size }),
        // Every tree begins with the empty one.
        Statement::Consistency { from: 0 } => Ok(Ok(Vec::new())),
        Statement::Consistency { from } => Ok(tlog::prove_tree(size, from, reader)),
    }
}

/// Checks that a leaf is in a tree.
pub fn check_inclusion(proof: &[Hash], size: u64, root: Hash, index: u64, leaf: Hash) -> Result<(), ProofError> {
    // A tree of 2^64 leaves needs no more.
    if proof.len() > 64 {
        return Err(ProofError::Invalid);
    }
    tlog::check_record(&proof.to_vec(), size, root, index, leaf).map_err(|_| ProofError::Invalid)
}

/// Checks that a tree is the beginning of a later one.
pub fn check_consistency(proof: &[Hash], size: u64, root: Hash, from: u64, from_root: Hash) -> Result<(), ProofError> {
    let proved = match from {
        0 => proof.is_empty() && from_root == EMPTY_ROOT,
        _ if proof.len() > 128 => false,
        _ => tlog::check_tree(&proof.to_vec(), size, root, from, from_root).is_ok(),
    };
    if proved { Ok(()) } else { Err(ProofError::Invalid) }
}

fn missing(tile: SizedTile) -> ProofError {
    ProofError::NoTile { level: tile.id.level, index: tile.id.index, width: tile.width }
}

/// Number of hashes of a tile in a tree of that size.
fn width(id: TileId, size: u64) -> usize {
    let hashes = size.checked_shr(u32::from(TILE_HEIGHT) * u32::from(id.level)).unwrap_or_default();
    let rest = hashes.saturating_sub(id.index.saturating_mul(TILE_WIDTH as u64));
    usize::try_from(rest).map_or(TILE_WIDTH, |rest| rest.min(TILE_WIDTH))
}

/// The tile that contains a hash, as far as needed for it.
fn tile_of(index: u64) -> (Tile, TileId) {
    let tile = Tile::from_index(TILE_HEIGHT, index);
    (tile, TileId { level: tile.level(), index: tile.level_index() })
}

/// Records the requested tiles.
#[derive(Default)]
struct Asked(RefCell<BTreeSet<TileId>>);

impl HashReader for Asked {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        self.0.borrow_mut().extend(indexes.iter().map(|index| tile_of(*index).1));
        Err(Error::InvalidTile)
    }
}

/// Hashes from tiles. Not `tlog_tiles`'s own reader (0.2.0), which checks tiles against the root but misses
/// some if several subtrees of the tree share a tile.
struct Given<'a, T>(&'a T);

impl<T: Tiles> HashReader for Given<'_, T> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        let read = indexes.iter().map(|index| {
            let (tile, id) = tile_of(*index);
            let hashes = self.0.tile(id).and_then(|hashes| hashes.get(..tile.width() as usize));
            tile.hash_at_index(&hashes.map(hashes_to_bytes).ok_or(Error::InvalidTile)?, *index)
        });
        read.collect()
    }
}

#[cfg(test)]
mod tests;
