//! Signed heads of a tree: the checkpoints in the database, and those in the file outside of it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::Path;

use hookledger_aggregates::Partition;
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;

use super::finding::{Finding, Findings, Kind};
use super::stored::{self, CheckpointRow};
use super::tree::Promise;
use crate::audit::LedgerId;
use crate::audit::checkpoint::{Checkpoint, PublicKey};
use crate::audit::file;
use crate::audit::loss::{Loss, Losses, LostHead};
use crate::log::LogPosition;

/// Checkpoints read at once.
const PAGE: i64 = 200;

/// A checkpoint in the file.
#[derive(Clone, Debug)]
struct Anchor {
    promise: Promise,
    line: usize,
    digest: [u8; 32],
}

/// The checkpoints of the file outside the database, by tree and size.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    by_ledger: HashMap<LedgerId, VecDeque<Anchor>>,
    /// Lines without a checkpoint.
    pub(super) cut: u64,
    pub(super) losses: Losses,
}

impl Anchors {
    /// Reads the file. A line without a known signature is a finding.
    pub(super) fn read(
        path: &Path,
        keys: &[PublicKey],
        wanted: Option<LedgerId>,
        findings: &mut Findings,
    ) -> io::Result<Self> {
        let mut anchors = Self::default();
        for line in file::read(path)? {
            let (line, note) = line?;
            let Some(note) = note else {
                anchors.cut += 1;
                continue;
            };
            if Loss::is_one(&note) {
                match Loss::open(&note, keys) {
                    Ok(loss) => anchors.losses.add(loss),
                    Err(error) => {
                        let text = format!("line {line} of {}: {error}", path.display());
                        findings.add(Finding::elsewhere(Kind::Ledger, text));
                    }
                }
                continue;
            }
            match Checkpoint::open(&note, keys) {
                Ok(checkpoint) if wanted.is_none_or(|wanted| wanted == checkpoint.origin.ledger) => {
                    let (promise, digest) = (Promise::from(&checkpoint), Sha256::digest(&note).into());
                    anchors.by_ledger.entry(checkpoint.origin.ledger).or_default().push_back(Anchor {
                        promise,
                        line,
                        digest,
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    let text = format!("line {line} of {}: {error}", path.display());
                    findings.add(Finding::elsewhere(Kind::Ledger, text));
                }
            }
        }
        for of_ledger in anchors.by_ledger.values_mut() {
            of_ledger.make_contiguous().sort_by_key(|anchor| anchor.promise.size);
        }
        Ok(anchors)
    }

    pub(super) fn ledgers(&self) -> impl Iterator<Item = LedgerId> {
        self.by_ledger.keys().copied()
    }

    pub(super) fn count(&self) -> usize {
        self.by_ledger.values().map(VecDeque::len).sum()
    }

    fn take(&mut self, ledger: LedgerId) -> VecDeque<Anchor> {
        self.by_ledger.remove(&ledger).unwrap_or_default()
    }
}

/// The signed heads of one tree, in the order of sizes.
#[derive(Debug)]
pub(super) struct Promises {
    ledger: LedgerId,
    rows: VecDeque<CheckpointRow>,
    after: i64,
    ended: bool,
    anchors: VecDeque<Anchor>,
    excused: HashSet<LostHead>,
}

impl Promises {
    pub(super) fn new(ledger: LedgerId, anchors: &mut Anchors) -> Self {
        let excused = anchors.losses.of(ledger);
        Self { ledger, rows: VecDeque::new(), after: -1, ended: false, anchors: anchors.take(ledger), excused }
    }

    /// The size of the next signed head, if there is one.
    pub(super) async fn next_size(&mut self, connection: &mut PgConnection) -> Result<Option<u64>, sqlx::Error> {
        if self.rows.is_empty() && !self.ended {
            self.rows = stored::checkpoints(connection, self.ledger, self.after, PAGE).await?.into();
            self.ended = self.rows.is_empty();
            self.after = self.rows.back().map_or(self.after, |row| i64::try_from(row.size).unwrap_or(i64::MAX));
        }
        let row = self.rows.front().map(|row| row.size);
        let anchor = self.anchors.front().map(|anchor| anchor.promise.size);
        Ok(row.into_iter().chain(anchor).min())
    }

    /// The checkpoints of that size, which is the next one, and their problems.
    pub(super) fn take(
        &mut self,
        size: u64,
        keys: &[PublicKey],
        findings: &mut Findings,
        unrecorded: Option<&mut Vec<(LedgerId, LostHead)>>,
    ) -> Vec<(Promise, Option<Checkpoint>)> {
        let mut promises = Vec::new();
        let mut anchors = Vec::new();
        while self.anchors.front().is_some_and(|anchor| anchor.promise.size <= size) {
            // Only heads that are declared lost are skipped; those in the database are always compared.
            let is_lost = |anchor: &Anchor| self.excused.contains(&(anchor.promise.size, anchor.promise.root.0));
            anchors.extend(self.anchors.pop_front().filter(|anchor| !is_lost(anchor)));
        }
        let row = if self.rows.front().is_some_and(|row| row.size <= size) { self.rows.pop_front() } else { None };
        let partition: Partition = self.ledger.partition();
        let mut wrong = |last: i64, text: String| {
            findings.add(Finding::at(Kind::Ledger, LogPosition { partition, position: last }, self.ledger, text));
        };
        let has_row = row.is_some();
        if let Some(row) = row {
            let known: [u8; 32] = Sha256::digest(&row.note).into();
            let opened = if anchors.iter().any(|anchor| anchor.digest == known) {
                Checkpoint::read_unverified(&row.note)
            } else {
                Checkpoint::open(&row.note, keys)
            };
            match opened {
                Ok(checkpoint) if says_the_same(&checkpoint, &row, self.ledger) => {
                    promises.push((Promise::from(&checkpoint), Some(checkpoint)));
                }
                Ok(_) => wrong(
                    row.last,
                    format!(
                        "the checkpoint of {size} leaves (ledger_checkpoints) was changed: its row is not what was signed"
                    ),
                ),
                Err(error) => wrong(
                    row.last,
                    format!(
                        "the checkpoint of {size} leaves (ledger_checkpoints) was changed, or another key signed it: {error}"
                    ),
                ),
            }
        }
        if let (false, Some(_), Some(unrecorded)) = (has_row, anchors.first(), unrecorded) {
            let heads = anchors.iter().map(|anchor| (anchor.promise.size, anchor.promise.root.0));
            unrecorded.extend(heads.map(|head| (self.ledger, head)));
        } else if let (false, Some(anchor)) = (has_row, anchors.first()) {
            wrong(
                anchor.promise.last,
                format!(
                    "the checkpoint of {size} leaves is missing (ledger_checkpoints): it is in line {} of the checkpoint file",
                    anchor.line
                ),
            );
        }
        promises.extend(anchors.into_iter().map(|anchor| (anchor.promise, None)));
        promises
    }
}

fn says_the_same(checkpoint: &Checkpoint, row: &CheckpointRow, ledger: LedgerId) -> bool {
    checkpoint.origin.ledger == ledger
        && checkpoint.size == row.size
        && Some(checkpoint.root) == row.root
        && checkpoint.last == row.last
        && checkpoint.signed_at == row.signed_at
}
