//! One tree, rebuilt from the events and compared with its stored form and its signed heads.
//!
//! The signature decides. If the tree of the events has the signed root, the events are right, and any
//! difference is a change of the ledger's tables. If the stored leaves have the signed root, they are right,
//! and show which events were changed.

use chrono::{DateTime, Utc};
use hookledger_aggregates::Partition;

use super::blame::{LOOKED_AT, Suspect, differences};
use super::finding::{Finding, Kind};
use crate::audit::LedgerId;
use crate::audit::checkpoint::Checkpoint;
use crate::audit::tree::{Edge, FullTile, Hash, TileId};
use crate::log::LogPosition;

/// A signed head of a tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Promise {
    pub size: u64,
    pub root: Hash,
    /// Position of the last leaf.
    pub last: i64,
    pub signed_at: DateTime<Utc>,
}

impl From<&Checkpoint> for Promise {
    fn from(checkpoint: &Checkpoint) -> Self {
        let Checkpoint { size, root, last, signed_at, origin: _ } = checkpoint;
        Self { size: *size, root: *root, last: *last, signed_at: *signed_at }
    }
}

/// A full tile in the tables.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTile {
    pub hashes: Vec<Hash>,
    pub root: Option<Hash>,
    /// At level 0.
    pub positions: Vec<i64>,
}

/// A tile that differs from the one built from the events.
#[derive(Clone, Debug)]
struct Trouble {
    tile: TileId,
    /// At level 0, its differing leaves.
    suspects: Vec<Suspect>,
    last: i64,
}

/// Result of comparing a tree with a signed head.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    Right,
    /// These events differ from the signed ones, the first one first.
    Events(Vec<Suspect>),
    /// Something differs from what was signed.
    Wrong(Finding),
}

/// A tree that is being rebuilt.
#[derive(Debug)]
pub struct TreeCheck {
    ledger: LedgerId,
    partition: Partition,
    edge: Edge,
    /// Positions of the leaves that do not fill a tile yet.
    positions: Vec<i64>,
    /// The tree without these leaves.
    boundary: Edge,
    /// The same for the stored leaves, from their first difference.
    stored: Option<Edge>,
    /// Number of proved leaves, and the position of the last of them.
    proved: (u64, i64),
    last: i64,
    troubles: Vec<Trouble>,
}

impl TreeCheck {
    #[must_use]
    pub fn new(ledger: LedgerId) -> Self {
        Self {
            ledger,
            partition: ledger.partition(),
            edge: Edge::default(),
            positions: Vec::new(),
            boundary: Edge::default(),
            stored: None,
            proved: (0, 0),
            last: 0,
            troubles: Vec::new(),
        }
    }

    #[must_use]
    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    #[must_use]
    pub fn root(&self) -> Hash {
        self.edge.root()
    }

    /// Position of the last leaf.
    #[must_use]
    pub fn last(&self) -> i64 {
        self.last
    }

    /// Number of leaves proved by a signature.
    #[must_use]
    pub fn proved(&self) -> u64 {
        self.proved.0
    }

    /// The same, with the position of the last of them.
    #[must_use]
    pub fn proved_to(&self) -> (u64, i64) {
        self.proved
    }

    /// The first leaf outside of full tiles.
    #[must_use]
    pub fn boundary(&self) -> u64 {
        self.boundary.size()
    }

    /// Adds a leaf. If it fills tiles, they are returned with the positions of their leaves.
    pub fn push(&mut self, position: i64, leaf: Hash) -> Option<(Vec<FullTile>, Vec<i64>)> {
        let mut full = Vec::new();
        self.edge.push(leaf, &mut full);
        self.positions.push(position);
        self.last = position;
        if full.is_empty() {
            return None;
        }
        Some((full, std::mem::take(&mut self.positions)))
    }

    /// Compares full tiles with the stored ones, level 0 first.
    pub fn compare(
        &mut self,
        full: &[FullTile],
        positions: &[i64],
        mut stored: impl FnMut(TileId) -> Option<StoredTile>,
    ) {
        for tile in full {
            let found = stored(tile.id);
            let same = found.as_ref().is_some_and(|found| {
                found.hashes == tile.hashes
                    && found.root == Some(tile.root)
                    && (tile.id.level > 0 || found.positions == positions)
            });
            if tile.id.level == 0 {
                let leaves = found.as_ref().filter(|found| found.hashes.len() == tile.hashes.len());
                let leaves = leaves.map_or(&tile.hashes, |found| &found.hashes);
                if !same && self.stored.is_none() {
                    self.stored = Some(self.boundary.clone());
                }
                if let Some(stored) = &mut self.stored {
                    let mut ignored = Vec::new();
                    leaves.iter().for_each(|leaf| stored.push(*leaf, &mut ignored));
                }
            }
            if !same && self.troubles.len() < LOOKED_AT {
                let of = |found: &StoredTile| {
                    let expected: Vec<_> = found.positions.iter().copied().zip(found.hashes.iter().copied()).collect();
                    let actual: Vec<_> = positions.iter().copied().zip(tile.hashes.iter().copied()).collect();
                    differences(&expected, &actual)
                };
                let suspects = found.as_ref().filter(|_| tile.id.level == 0).map(of).unwrap_or_default();
                self.troubles.push(Trouble { tile: tile.id, suspects, last: self.last });
            }
        }
        self.boundary = self.edge.clone();
    }

    /// Compares the tree with a signed head. `stored` are the stored leaves from [`TreeCheck::boundary`] on,
    /// as many as the head covers; they are needed only if [`TreeCheck::keeps`] is false.
    #[must_use]
    pub fn judge(&mut self, promise: &Promise, stored: &[(i64, Hash)]) -> Verdict {
        let place = |position| LogPosition { partition: self.partition, position };
        if self.keeps(promise) {
            self.proved = (promise.size, promise.last);
            self.stored = None;
            let Some(trouble) = self.troubles.drain(..).next() else { return Verdict::Right };
            let first = trouble.suspects.first().map_or(trouble.last, |suspect| suspect.position);
            return Verdict::Wrong(Finding::at(Kind::Ledger, place(first), self.ledger, trouble.told()));
        }
        let when = promise.signed_at.format("%Y-%m-%d %H:%M:%S UTC");
        let actual = self.partial();
        let mut suspects: Vec<Suspect> =
            self.troubles.iter().flat_map(|trouble| trouble.suspects.iter().copied()).collect();
        suspects.extend(differences(stored, &actual));
        suspects.sort_by_key(|suspect| suspect.position);
        if self.stored_root(stored) == (promise.size, promise.root) && !suspects.is_empty() {
            return Verdict::Events(suspects);
        }
        if self.edge.size() < promise.size {
            let missing = promise.size - self.edge.size();
            let text = format!(
                "{missing} events of this ledger are missing, from after here up to {}: the checkpoint signed at {when} has {}, \
                 the log has {}",
                promise.last,
                promise.size,
                self.edge.size()
            );
            return Verdict::Wrong(Finding::at(Kind::Missing, place(self.last.saturating_add(1)), self.ledger, text));
        }
        let (proved, after) = self.proved;
        let first = suspects.first().map_or(after.saturating_add(1), |suspect| suspect.position);
        let text = format!(
            "the events of this ledger from here on are not those of the checkpoint signed at {when}, whose last is at {}; \
             the {proved} events up to position {after} are. The ledger's tables were changed as well, so that the place \
             is not known more exactly",
            promise.last
        );
        Verdict::Wrong(Finding::at(Kind::Differs, place(first), self.ledger, text))
    }

    /// Whether the current tree is the signed one.
    #[must_use]
    pub fn keeps(&self, promise: &Promise) -> bool {
        self.edge.size() == promise.size && self.edge.root() == promise.root && self.last == promise.last
    }

    /// Differences in the unsigned part. `stored` are the stored leaves from the boundary on.
    #[must_use]
    pub fn unsigned_differences(&self, stored: &[(i64, Hash)], size: u64) -> Vec<Suspect> {
        let mut suspects: Vec<Suspect> =
            self.troubles.iter().flat_map(|trouble| trouble.suspects.iter().copied()).collect();
        let mut actual = self.partial();
        // Events that are in the log but not in the tree yet are no problem.
        actual.truncate(usize::try_from(size.saturating_sub(self.boundary())).unwrap_or(usize::MAX));
        suspects.extend(differences(stored, &actual));
        suspects
    }

    /// A problem of tiles above the leaves that no signature covers yet.
    #[must_use]
    pub fn trouble(&self) -> Option<Finding> {
        let trouble = self.troubles.first()?;
        let place = LogPosition { partition: self.partition, position: trouble.last };
        Some(Finding::at(Kind::Ledger, place, self.ledger, trouble.told()))
    }

    /// Whether a signature proves the leaf at a position.
    #[must_use]
    pub fn is_proved(&self, position: i64) -> bool {
        position <= self.proved.1
    }

    fn partial(&self) -> Vec<(i64, Hash)> {
        self.positions.iter().copied().zip(self.edge.partial(0).iter().copied()).collect()
    }

    fn stored_root(&self, leaves: &[(i64, Hash)]) -> (u64, Hash) {
        let mut tree = self.stored.clone().unwrap_or_else(|| self.boundary.clone());
        let mut ignored = Vec::new();
        leaves.iter().for_each(|(_, leaf)| {
            tree.push(*leaf, &mut ignored);
            ignored.clear();
        });
        (tree.size(), tree.root())
    }
}

impl Trouble {
    fn told(&self) -> String {
        let TileId { level, index } = self.tile;
        format!(
            "the tile {level}/{index} of this ledger (ledger_tiles) is missing or was changed; the events are those that were signed"
        )
    }
}

#[cfg(test)]
mod tests {
    use hookledger_aggregates::OrganizationId;
    use tlog_tiles::tlog::record_hash;

    use super::*;
    use crate::audit::tree::TILE_WIDTH;

    fn leaves(count: i64) -> Vec<(i64, Hash)> {
        (1..=count).map(|position| (position * 2, record_hash(&position.to_be_bytes()))).collect()
    }

    /// The stored tiles of a tree, and its signed head.
    fn stored(leaves: &[(i64, Hash)]) -> (Vec<(TileId, StoredTile)>, Promise) {
        let (mut edge, mut tiles, mut at) = (Edge::default(), Vec::new(), Vec::new());
        for (position, leaf) in leaves {
            let mut full = Vec::new();
            edge.push(*leaf, &mut full);
            at.push(*position);
            for tile in full {
                let positions = if tile.id.level == 0 { std::mem::take(&mut at) } else { Vec::new() };
                tiles.push((tile.id, StoredTile { hashes: tile.hashes, root: Some(tile.root), positions }));
            }
        }
        let last = leaves.last().map_or(0, |(position, _)| *position);
        (tiles, Promise { size: edge.size(), root: edge.root(), last, signed_at: DateTime::default() })
    }

    fn check(log: &[(i64, Hash)], tiles: &[(TileId, StoredTile)], tail: &[(i64, Hash)], promise: &Promise) -> Verdict {
        let mut tree = TreeCheck::new(LedgerId::organization(OrganizationId::PLATFORM));
        for (position, leaf) in log {
            if let Some((full, positions)) = tree.push(*position, *leaf) {
                tree.compare(&full, &positions, |id| tiles.iter().find(|tile| tile.0 == id).map(|tile| tile.1.clone()));
            }
        }
        let from = usize::try_from(tree.boundary()).unwrap();
        tree.judge(promise, &tail[from..])
    }

    #[test]
    fn what_was_signed_is_right() {
        for count in [1, 255, 256, 257, 600, 66_000] {
            let leaves = leaves(count);
            let (tiles, promise) = stored(&leaves);
            assert_eq!(check(&leaves, &tiles, &leaves, &promise), Verdict::Right, "{count}");
        }
    }

    #[test]
    fn an_event_that_was_changed_is_told_wherever_it_is() {
        for changed in [0, 100, 255, 256, 511, 512, 599] {
            let leaves = leaves(600);
            let (tiles, promise) = stored(&leaves);
            let mut log = leaves.clone();
            log[changed].1 = record_hash(b"other");
            let Verdict::Events(suspects) = check(&log, &tiles, &leaves, &promise) else { panic!("{changed}") };
            assert_eq!(suspects.len(), 1);
            assert_eq!(suspects[0].position, leaves[changed].0);
        }
    }

    #[test]
    fn events_that_are_missing_are_told() {
        let leaves = leaves(600);
        let (tiles, promise) = stored(&leaves);
        for from in [597, 300] {
            let log = [&leaves[..from], &leaves[from + 3..]].concat();
            let Verdict::Events(suspects) = check(&log, &tiles, &leaves, &promise) else { panic!("{from}") };
            assert_eq!(suspects[0].position, leaves[from].0);
            assert_eq!(suspects[0].actual, None);
        }
    }

    #[test]
    fn a_tile_that_was_changed_is_not_taken_for_an_event_that_was() {
        let leaves = leaves(600);
        let (tiles, promise) = stored(&leaves);
        for index in 0..tiles.len() {
            let mut changed = tiles.clone();
            changed[index].1.hashes[3] = record_hash(b"other");
            let Verdict::Wrong(finding) = check(&leaves, &changed, &leaves, &promise) else { panic!("{index}") };
            assert_eq!(finding.kind, Kind::Ledger);
            changed.remove(index);
            let Verdict::Wrong(finding) = check(&leaves, &changed, &leaves, &promise) else { panic!("{index}") };
            assert_eq!(finding.kind, Kind::Ledger);
        }
    }

    #[test]
    fn where_log_and_ledger_were_both_changed_the_signature_tells() {
        let leaves = leaves(600);
        let (_, promise) = stored(&leaves);
        let mut forged = leaves.clone();
        forged[300].1 = record_hash(b"other");
        let (tiles, _) = stored(&forged);
        let Verdict::Wrong(finding) = check(&forged, &tiles, &forged, &promise) else { panic!() };
        assert_eq!((finding.kind, finding.place.unwrap().position), (Kind::Differs, 1));
        let short = &forged[..TILE_WIDTH];
        let Verdict::Wrong(finding) = check(short, &stored(short).0, short, &promise) else { panic!() };
        assert_eq!((finding.kind, finding.place.unwrap().position), (Kind::Missing, 513));
    }
}
