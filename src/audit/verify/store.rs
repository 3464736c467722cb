//! Verifies a store: every leaf from the rows of the log, against the ledger and the signed heads. It reads
//! one state of the database, whether or not a server is running.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use hookledger_aggregates::{OrganizationId, Partition};
use sqlx::{Connection as _, PgConnection, PgPool};

use super::blame::{LOOKED_AT, Suspect, explain};
use super::events::{Digests, EventCheck, Request, has_request};
use super::finding::{Finding, Kind};
use super::promises::{Anchors, Promises};
use super::signatures::Signatures;
use super::stored;
use super::tree::{Promise, StoredTile, TreeCheck, Verdict};
use super::{KeySource, Subject, Undeclared, Verification};
use crate::audit::LedgerId;
use crate::audit::checkpoint::{Checkpoint, PublicKey};
use crate::audit::loss::{self, Loss};
use crate::audit::tree::{FullTile, Hash, TileId};
use crate::log::{self, LogPosition, Walked};
use crate::platform::secrets::vault::{Vault, VaultError};

/// Events between two progress reports.
const TOLD: u64 = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum StoreCheckError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
}

/// A verification of a database: its scope and its keys.
pub struct StoreCheck<'a> {
    /// Acts as `hookledger_worker`.
    pub pool: PgPool,
    pub vault: Vault,
    pub keys: Vec<PublicKey>,
    pub key_source: KeySource,
    /// One organization's ledger instead of all.
    pub organization: Option<&'a str>,
    /// The checkpoint file outside the database.
    pub checkpoint_file: Option<&'a Path>,
    /// Collects heads of the file that the log lacks, to declare them, instead of reporting findings.
    pub declaring: bool,
    /// Receives the events verified and their total.
    pub progress: &'a mut dyn FnMut(u64, u64),
}

impl StoreCheck<'_> {
    /// Runs the verification.
    ///
    /// # Errors
    /// Only if the database or the file cannot be read; problems of their content are findings.
    pub async fn run(self, now: DateTime<Utc>) -> Result<Verification, StoreCheckError> {
        let subject = Subject::Store { organization: self.organization.map(str::to_owned) };
        let mut found = Verification::new(subject, now, self.keys.clone(), self.key_source);
        let organization = self.organization.map(OrganizationId::from_slug);
        let wanted = organization.map(LedgerId::organization);
        // A node may sign meanwhile, in the database first, so every head in the file now is in the
        // database's state.
        let mut anchors = self.anchors(wanted, &mut found)?;
        let mut rows = self.pool.acquire().await?.detach();
        let mut lookups = self.pool.acquire().await?.detach();
        let snapshot = log::begin(&mut rows, None).await?;
        log::begin(&mut lookups, Some(&snapshot)).await?;
        found.undeclared = self.declaring.then(Undeclared::default);
        for (ledger, note) in loss::notes(&mut lookups).await? {
            match Loss::open(&note, &self.keys) {
                Ok(loss) if loss.origin.ledger == ledger => anchors.losses.add(loss),
                _ => {
                    let text = format!(
                        "a declared loss of the ledger {ledger} (ledger_losses) was changed, or another key signed it"
                    );
                    found.findings.add(Finding::elsewhere(Kind::Ledger, text));
                }
            }
        }
        let is_wanted = |loss: &&Loss| wanted.is_none_or(|wanted| wanted == loss.origin.ledger);
        found.losses = anchors.losses.declared.iter().filter(is_wanted).cloned().collect();
        let mut walk = Walk {
            ledgers: stored::ledgers(&mut lookups).await?.into_iter().chain(anchors.ledgers()).collect(),
            heads: stored::heads(&mut lookups)
                .await?
                .into_iter()
                .map(|(id, size, last, root)| (id, (size, last, root)))
                .collect(),
            signatures: Signatures::new(self.vault),
            keys: self.keys,
            lookups,
            anchors,
            wanted,
            found,
            matched: 0,
            done: 0,
            total: 0,
            progress: self.progress,
        };
        let ends = log::ends(&mut walk.lookups).await?;
        let ends: Vec<_> =
            ends.into_iter().filter(|end| organization.is_none_or(|id| id.partition() == end.partition)).collect();
        walk.total = ends.iter().map(|end| end.position.unsigned_abs()).sum();
        for end in ends {
            walk.partition(&mut rows, end).await?;
        }
        if let Some(strays) = log::outside_partitions(&mut walk.lookups).await? {
            let text = format!("{strays} commits are in partitions that do not exist");
            walk.found.findings.add(Finding::elsewhere(Kind::Order, text));
        }
        walk.stray_requests(organization).await?;
        (walk.progress)(walk.total, walk.total);
        let (found, lookups) = (walk.found, walk.lookups);
        let _ = lookups.close().await;
        let _ = rows.close().await;
        Ok(found)
    }

    fn anchors(&self, wanted: Option<LedgerId>, found: &mut Verification) -> Result<Anchors, StoreCheckError> {
        let unseen = "what was signed last could be removed from log and ledger together, unseen";
        let Some(path) = self.checkpoint_file else {
            found.notes.push(format!("There is no checkpoint file outside the database: {unseen}."));
            return Ok(Anchors::default());
        };
        match Anchors::read(path, &self.keys, wanted, &mut found.findings) {
            Ok(anchors) => {
                found.notes.push(format!(
                    "{} checkpoints are in {}, outside the database; the log was compared with all of them.",
                    anchors.count(),
                    path.display()
                ));
                if anchors.cut > 0 {
                    found
                        .notes
                        .push(format!("{} lines of that file contain no checkpoint, as after a crash.", anchors.cut));
                }
                Ok(anchors)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                found.notes.push(format!(
                    "The checkpoint file outside the database, {}, does not exist: {unseen}.",
                    path.display()
                ));
                Ok(Anchors::default())
            }
            Err(source) => Err(StoreCheckError::File { path: path.to_owned(), source }),
        }
    }
}

/// Walks through the log.
struct Walk<'a> {
    lookups: PgConnection,
    keys: Vec<PublicKey>,
    anchors: Anchors,
    /// Trees with rows in the tables or lines in the file.
    ledgers: BTreeSet<LedgerId>,
    heads: BTreeMap<LedgerId, (u64, i64, Option<Hash>)>,
    signatures: Signatures,
    wanted: Option<LedgerId>,
    found: Verification,
    /// Stored requests that belong to an event.
    matched: i64,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

/// A tree of the current partition.
struct Tree {
    check: TreeCheck,
    promises: Promises,
    next: Option<u64>,
    /// Tiles that were read ahead.
    tiles: VecDeque<(u64, StoredTile)>,
    /// Whether the root in `ledger_trees` was right when the tree had that size.
    head_is_right: Option<bool>,
    newest: Option<Checkpoint>,
    /// Everything after it would only be wrong for the same reason.
    broken: bool,
}

impl Walk<'_> {
    async fn partition(&mut self, rows: &mut PgConnection, end: LogPosition) -> Result<(), StoreCheckError> {
        let partition = end.partition;
        let mut order = EventCheck::of_partition(partition);
        let mut trees: BTreeMap<LedgerId, Tree> = BTreeMap::new();
        let mut commits = log::walk(rows, partition, None, i64::MAX);
        while let Some(row) = commits.try_next().await? {
            let commit = row.read()?;
            if let Some((position, said, count)) = commit.miscount() {
                let place = Some(LogPosition { partition, position });
                let text = format!("the commit here is said to have {said} events, and has {count}");
                self.found.findings.add(Finding { place, ..Finding::elsewhere(Kind::Order, text) });
            }
            if commit.is_malformed() {
                let place = Some(LogPosition { partition, position: commit.position() });
                let text = "the commit here is not as the server writes it".to_owned();
                self.found.findings.add(Finding { place, ..Finding::elsewhere(Kind::Order, text) });
            }
            for walked in commit.events() {
                order.place(&walked.event, &mut self.found.findings);
                let ledger = LedgerId::of(OrganizationId::new(walked.event.organization), partition);
                if self.wanted.is_none_or(|wanted| wanted == ledger) {
                    self.event(&mut order, &walked).await?;
                    self.leaf(&mut trees, ledger, walked.event.position, walked.event.leaf_hash()).await?;
                }
                self.done += 1;
                if self.done.is_multiple_of(TOLD) {
                    (self.progress)(self.done, self.total.max(self.done));
                }
            }
        }
        drop(commits);
        order.removed(&mut self.found.findings);
        self.end(order.last(), end);
        let of_partition = self.ledgers.iter().copied().filter(|ledger| ledger.partition() == partition);
        let absent: Vec<_> = of_partition
            .filter(|ledger| !trees.contains_key(ledger) && self.wanted.is_none_or(|wanted| wanted == *ledger))
            .collect();
        for ledger in absent {
            let tree = self.tree(ledger).await?;
            trees.insert(ledger, tree);
        }
        for (ledger, tree) in trees {
            self.finish(ledger, tree).await?;
        }
        Ok(())
    }

    /// Checks an event and its stored request by themselves.
    async fn event(&mut self, order: &mut EventCheck, walked: &Walked<'_>) -> Result<(), StoreCheckError> {
        let (event, found) = (&walked.event, &mut self.found);
        found.tally.count(event);
        found.note_name(event);
        order.stream(event, &mut found.findings);
        let request = walked.kept.filter(|_| has_request(event.event_type)).map(|kept| {
            self.matched += 1;
            Request { webhook: Some(kept.webhook), headers: kept.headers, body: kept.body }
        });
        let digests = request.as_ref().map(Digests::of);
        order.request(event, digests.as_ref(), &mut found.tally, &mut found.findings);
        let other = request.as_ref().and_then(|request| request.webhook);
        if let Some(other) = other.filter(|other| other.to_string() != event.aggregate_id) {
            let (ledger, place) = order.whereabouts(event);
            let text = format!("the request stored here claims to belong to another webhook, {other}");
            found.findings.add(Finding::at(Kind::Request, place, ledger, text));
        }
        let (tally, findings) = (&mut found.tally, &mut found.findings);
        Ok(self.signatures.check(order, event, request.as_ref(), tally, findings).await?)
    }

    async fn tree(&mut self, ledger: LedgerId) -> Result<Tree, StoreCheckError> {
        let mut promises = Promises::new(ledger, &mut self.anchors);
        let next = promises.next_size(&mut self.lookups).await?;
        Ok(Tree {
            check: TreeCheck::new(ledger),
            promises,
            next,
            tiles: VecDeque::new(),
            head_is_right: None,
            newest: None,
            broken: false,
        })
    }

    async fn leaf(
        &mut self,
        trees: &mut BTreeMap<LedgerId, Tree>,
        ledger: LedgerId,
        position: i64,
        hash: Hash,
    ) -> Result<(), StoreCheckError> {
        let tree = match trees.entry(ledger) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(self.tree(ledger).await?),
        };
        let full = tree.check.push(position, hash);
        if tree.broken {
            return Ok(());
        }
        let head = self.heads.get(&ledger).copied();
        let size = tree.check.size();
        if let Some((full, positions)) = full {
            // The tree has not grown beyond its head yet.
            if head.is_some_and(|head| size <= head.0) {
                let stored = self.stored_tiles(ledger, tree, &full).await?;
                tree.check.compare(&full, &positions, |id| stored.get(&id).cloned());
            } else {
                let as_made = |tile: &FullTile| StoredTile {
                    hashes: tile.hashes.clone(),
                    root: Some(tile.root),
                    positions: if tile.id.level == 0 { positions.clone() } else { Vec::new() },
                };
                tree.check.compare(&full, &positions, |id| full.iter().find(|tile| tile.id == id).map(as_made));
            }
        }
        if let Some((_, last, root)) = head.filter(|head| head.0 == size) {
            tree.head_is_right = Some(last == position && root == Some(tree.check.root()));
        }
        if tree.next.is_some_and(|next| next <= size) {
            self.keep_promises(ledger, tree, size).await?;
        }
        Ok(())
    }

    async fn stored_tiles(
        &mut self,
        ledger: LedgerId,
        tree: &mut Tree,
        full: &[FullTile],
    ) -> Result<BTreeMap<TileId, StoredTile>, StoreCheckError> {
        let mut stored = BTreeMap::new();
        for tile in full {
            let found = if tile.id.level == 0 {
                if tree.tiles.is_empty() {
                    tree.tiles = stored::tiles(&mut self.lookups, ledger, tile.id).await?.into();
                }
                // A missing tile does not consume the ones after it.
                let is_next = tree.tiles.front().is_some_and(|(index, _)| *index <= tile.id.index);
                if is_next { tree.tiles.pop_front() } else { None }
            } else {
                stored::tiles(&mut self.lookups, ledger, tile.id).await?.into_iter().next()
            };
            if let Some((_, found)) = found.filter(|(index, _)| *index == tile.id.index) {
                stored.insert(tile.id, found);
            }
        }
        Ok(stored)
    }

    /// Compares the tree with everything signed at the next size.
    async fn keep_promises(&mut self, ledger: LedgerId, tree: &mut Tree, size: u64) -> Result<(), StoreCheckError> {
        for (promise, checkpoint) in tree.promises.take(
            size,
            &self.keys,
            &mut self.found.findings,
            self.found.undeclared.as_mut().map(|undeclared| &mut undeclared.unrecorded),
        ) {
            if tree.broken {
                break;
            }
            if checkpoint.is_none()
                && !tree.check.keeps(&promise)
                && let Some(undeclared) = &mut self.found.undeclared
            {
                undeclared.lost.push((ledger, promise, tree.check.proved_to()));
                continue;
            }
            let stored = if tree.check.keeps(&promise) {
                Vec::new()
            } else {
                stored::leaves(&mut self.lookups, ledger, tree.check.boundary(), promise.size).await?
            };
            let verdict = tree.check.judge(&promise, &stored);
            self.judged(ledger, tree, &promise, verdict).await?;
            if !tree.broken && checkpoint.is_some() {
                self.found.checkpoints += 1;
                tree.newest = checkpoint;
            }
        }
        tree.next = tree.promises.next_size(&mut self.lookups).await?;
        Ok(())
    }

    async fn judged(
        &mut self,
        ledger: LedgerId,
        tree: &mut Tree,
        promise: &Promise,
        verdict: Verdict,
    ) -> Result<(), StoreCheckError> {
        match verdict {
            Verdict::Right => {}
            Verdict::Events(suspects) => {
                let when = promise.signed_at.format("%Y-%m-%d %H:%M:%S UTC");
                let signed = format!("; the checkpoint signed at {when} proves it");
                self.explain(ledger, &suspects, &signed).await?;
                tree.broken = true;
            }
            Verdict::Wrong(finding) => {
                tree.broken = finding.kind != Kind::Ledger;
                self.found.findings.add(finding);
            }
        }
        Ok(())
    }

    async fn explain(&mut self, ledger: LedgerId, suspects: &[Suspect], why: &str) -> Result<(), StoreCheckError> {
        let suspects = &suspects[..suspects.len().min(LOOKED_AT)];
        let positions: Vec<i64> = suspects.iter().map(|suspect| suspect.position).collect();
        let partition = ledger.partition();
        let events = log::stored_at(&mut self.lookups, None, partition, &positions).await?;
        let events = events.into_iter().map(|event| (event.position, event)).collect();
        if let Some(mut finding) = explain(ledger, partition, suspects, &events) {
            finding.text.push_str(why);
            self.found.findings.add(finding);
        }
        Ok(())
    }

    /// Compares the end of the log with its head.
    fn end(&mut self, last: i64, end: LogPosition) {
        let place = LogPosition { position: last + 1, ..end };
        if last < end.position {
            let text = format!(
                "the last {} events are missing: the head of the log says {}",
                end.position - last,
                end.position
            );
            self.found.findings.add(Finding { place: Some(place), ..Finding::elsewhere(Kind::Missing, text) });
        } else if last > end.position {
            let text = format!("the head of the log (log_heads) was changed: it says {}", end.position);
            self.found.findings.add(Finding { place: Some(place), ..Finding::elsewhere(Kind::Order, text) });
        }
    }

    /// Final comparisons after all events of a tree.
    async fn finish(&mut self, ledger: LedgerId, mut tree: Tree) -> Result<(), StoreCheckError> {
        self.found.ledgers += 1;
        while let (false, Some(size)) = (tree.broken, tree.next) {
            self.keep_promises(ledger, &mut tree, size).await?;
        }
        let head = self.heads.get(&ledger).copied();
        let size = head.map_or(0, |head| head.0);
        if !tree.broken {
            let stored = stored::leaves(&mut self.lookups, ledger, tree.check.boundary(), size).await?;
            let suspects = tree.check.unsigned_differences(&stored, size);
            let partition = ledger.partition();
            match suspects.first() {
                Some(first) if tree.check.is_proved(first.position) => {
                    let place = LogPosition { partition, position: first.position };
                    let text = "the leaves of this ledger that fill no tile (ledger_tails) were changed; the events are \
                                those that were signed";
                    self.found.findings.add(Finding::at(Kind::Ledger, place, ledger, text));
                }
                Some(_) => {
                    self.explain(ledger, &suspects, "; no checkpoint has been signed since it was recorded").await?;
                }
                None => {
                    let place = LogPosition { partition, position: tree.check.last() };
                    let text = "the head of this ledger (ledger_trees) was changed: it is not the events' head";
                    let is_wrong = head.is_some() && tree.head_is_right != Some(true);
                    let of_head = || is_wrong.then(|| Finding::at(Kind::Ledger, place, ledger, text));
                    if let Some(finding) = tree.check.trouble().or_else(of_head) {
                        self.found.findings.add(finding);
                    }
                }
            }
        }
        self.found.unsigned += tree.check.size() - tree.check.proved().min(tree.check.size());
        if let Some(newest) = tree.newest {
            self.found.note_head(newest);
        }
        Ok(())
    }

    /// A stored request without an event was inserted or moved.
    async fn stray_requests(&mut self, organization: Option<OrganizationId>) -> Result<(), StoreCheckError> {
        let kept = log::kept_requests(&mut self.lookups, organization).await?;
        if kept > self.matched
            && let Some((organization, position)) = log::stray_request(&mut self.lookups, organization).await?
        {
            let partition: Partition = organization.partition();
            let ledger = LedgerId::organization(organization);
            let text = "a request is stored here (webhook_bodies) that belongs to no event";
            self.found.findings.add(Finding::at(Kind::Request, LogPosition { partition, position }, ledger, text));
        }
        Ok(())
    }
}
