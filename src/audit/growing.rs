//! One tree in memory, and the changes of a batch to the tables.

use super::LedgerId;
use super::tree::{Edge, FullTile, Hash, TILE_WIDTH};

/// A tree in the form needed for adding leaves.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Growing {
    pub(super) edge: Edge,
    /// Positions of the leaves that do not fill a tile yet.
    pub(super) positions: Vec<i64>,
    /// Position of the last leaf.
    pub(super) last: i64,
}

/// Changes of a batch.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) grown: Vec<Grown>,
    pub(super) tiles: Vec<NewTile>,
    pub(super) tails: Vec<Tail>,
}

/// A tree that has grown.
#[derive(Debug, PartialEq)]
pub(super) struct Grown {
    pub(super) ledger: LedgerId,
    pub(super) from: u64,
    pub(super) size: u64,
    pub(super) last: i64,
    pub(super) root: Hash,
    /// Pieces that began before this leaf are in a full tile now.
    pub(super) tail_from: u64,
}

#[derive(Debug)]
pub(super) struct NewTile {
    pub(super) ledger: LedgerId,
    pub(super) tile: FullTile,
    /// At level 0.
    pub(super) positions: Option<Vec<i64>>,
}

/// A piece of a partial tile.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) ledger: LedgerId,
    pub(super) first: u64,
    pub(super) hashes: Vec<Hash>,
    pub(super) positions: Vec<i64>,
}

impl Growing {
    /// Adds leaves in the order of their positions. Returns false, without a change, if one is out of order.
    pub(super) fn add(
        &mut self,
        ledger: LedgerId,
        leaves: impl IntoIterator<Item = (i64, Hash)>,
        changes: &mut Changes,
    ) -> bool {
        let (from, mut full) = (self.edge.size(), Vec::new());
        for (position, hash) in leaves {
            if position <= self.last {
                return false;
            }
            self.last = position;
            self.positions.push(position);
            self.edge.push(hash, &mut full);
            for tile in full.drain(..) {
                let positions = (tile.id.level == 0).then(|| std::mem::take(&mut self.positions));
                changes.tiles.push(NewTile { ledger, tile, positions });
            }
        }
        let (size, width) = (self.edge.size(), TILE_WIDTH as u64);
        let tail_from = size - size % width;
        let grown = Grown { ledger, from, size, last: self.last, root: self.edge.root(), tail_from };
        changes.grown.push(grown);
        let first = from.max(tail_from);
        let known = usize::try_from(first - tail_from).unwrap_or(usize::MAX);
        if let (Some(hashes @ [_, ..]), Some(positions)) =
            (self.edge.partial(0).get(known..), self.positions.get(known..))
        {
            changes.tails.push(Tail { ledger, first, hashes: hashes.to_vec(), positions: positions.to_vec() });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use hookledger_aggregates::OrganizationId;
    use tlog_tiles::tlog::record_hash;

    use super::*;

    fn ledger() -> LedgerId {
        LedgerId::organization(OrganizationId::from_slug("acme"))
    }

    fn leaves(positions: std::ops::Range<i64>) -> impl Iterator<Item = (i64, Hash)> {
        positions.map(|position| (position * 3, record_hash(&position.to_be_bytes())))
    }

    #[test]
    fn a_batch_adds_a_tail_and_what_it_fills_becomes_tiles() {
        let (mut tree, mut first) = (Growing::default(), Changes::default());
        assert!(tree.add(ledger(), leaves(1..11), &mut first));
        assert!(first.tiles.is_empty());
        assert_eq!((first.tails[0].first, first.tails[0].hashes.len()), (0, 10));
        assert_eq!(first.tails[0].positions[9], 30);

        let mut second = Changes::default();
        assert!(tree.add(ledger(), leaves(11..21), &mut second));
        assert_eq!((second.tails[0].first, second.tails[0].hashes.len()), (10, 10));
        assert_eq!((second.grown[0].from, second.grown[0].size, second.grown[0].tail_from), (10, 20, 0));

        let mut third = Changes::default();
        assert!(tree.add(ledger(), leaves(21..601), &mut third));
        assert_eq!(third.tiles.len(), 2);
        assert_eq!(third.tiles[0].positions.as_ref().unwrap().len(), TILE_WIDTH);
        assert_eq!(third.tiles[1].positions.as_ref().unwrap()[0], 257 * 3);
        assert_eq!((third.tails[0].first, third.tails[0].hashes.len()), (512, 600 - 512));
        assert_eq!((third.grown[0].tail_from, third.grown[0].last), (512, 1_800));
    }

    #[test]
    fn a_batch_that_fills_a_tile_exactly_leaves_no_tail() {
        let (mut tree, mut changes) = (Growing::default(), Changes::default());
        assert!(tree.add(ledger(), leaves(1..257), &mut changes));
        assert_eq!((changes.tiles.len(), changes.tails.len(), changes.grown[0].tail_from), (1, 0, 256));
    }

    #[test]
    fn a_leaf_out_of_order_is_refused() {
        let (mut tree, mut changes) = (Growing::default(), Changes::default());
        assert!(tree.add(ledger(), leaves(1..11), &mut changes));
        assert!(!tree.add(ledger(), leaves(10..12), &mut changes));
    }
}
