//! Declared losses: the missing events of a database that came back without the end of its log.
//!
//! ```text
//! hooks.example.com/ledger/6f1d3c1e-6d5e-5a55-9a53-0d6f7a0b5f5a
//! declared loss
//! time 2026-11-25T12:00:05.123456Z
//! kept 105 5570
//! reason "the replica was promoted without the last minute"
//! noticed 3 5678 5570
//! lost 110 fqsUuJ8c1Bz6FhmPkGSyRnb0eT1mJmRzNYh1dWZ4AnY=
//! ```
//!
//! It is a signed note, as checkpoints are. It excuses exactly the signed heads that it names by size and
//! root, but never the current log or later heads. `hookledger audit declare-loss` creates one; [`watch`]
//! reports that one is needed.

pub mod watch;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use chrono::{DateTime, SecondsFormat, Utc};
use sqlx::PgExecutor;
use tlog_tiles::tlog::HASH_SIZE;
use uuid::Uuid;

use super::LedgerId;
use super::checkpoint::{CheckpointError, LedgerKeys, Origin, PublicKey, open_note};
use super::file;
use super::tree::Hash;

const TITLE: &str = "declared loss";
/// Heads per note, because a line of the checkpoint file is bounded.
const HEADS: usize = 5_000;

/// A signed head, identified within its tree by size and root.
pub type LostHead = (u64, [u8; HASH_SIZE]);

/// The declared loss of one tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    pub origin: Origin,
    pub declared_at: DateTime<Utc>,
    /// Leaves of the last valid signed head, and the position of the last of them.
    pub kept: (u64, i64),
    pub reason: String,
    /// Partitions whose known end was beyond the database's: partition, known, found.
    pub noticed: Vec<(i32, i64, i64)>,
    /// Signed heads that the log lacks.
    pub lost: Vec<LostHead>,
}

impl Loss {
    fn text(&self) -> String {
        let time = self.declared_at.to_rfc3339_opts(SecondsFormat::Micros, true);
        let reason = serde_json::Value::from(self.reason.as_str());
        let (kept, last) = self.kept;
        let head = format!("{}\n{TITLE}\ntime {time}\nkept {kept} {last}\nreason {reason}\n", self.origin);
        let noticed =
            self.noticed.iter().map(|(partition, known, found)| format!("noticed {partition} {known} {found}\n"));
        let heads = self.lost.iter().map(|(size, root)| format!("lost {size} {}\n", Hash(*root)));
        std::iter::once(head).chain(noticed).chain(heads).collect()
    }

    /// Signs with every key; several notes if one would be too long.
    pub fn sign(&self, keys: &LedgerKeys) -> Result<Vec<String>, CheckpointError> {
        let mut portions: Vec<Vec<LostHead>> = self.lost.chunks(HEADS).map(<[_]>::to_vec).collect();
        if portions.is_empty() {
            portions.push(Vec::new());
        }
        let note = |lost| keys.sign_note(&self.origin, Self { lost, ..self.clone() }.text().as_bytes());
        portions.into_iter().map(note).collect()
    }

    /// Whether a note claims to be a declared loss.
    #[must_use]
    pub fn is_one(note: &str) -> bool {
        note.lines().nth(1) == Some(TITLE)
    }

    /// Reads a note signed by these keys.
    pub fn open(note: &str, keys: &[PublicKey]) -> Result<Self, CheckpointError> {
        let form = || CheckpointError::Form("not a declared loss");
        let origin: Origin = note.lines().next().ok_or_else(form)?.parse()?;
        let (text, _) = open_note(note, &origin, keys)?;
        let loss = Self::parse(origin, &text).ok_or_else(form)?;
        // The signed text must be exactly the one that was parsed.
        if loss.text() == text { Ok(loss) } else { Err(form()) }
    }

    fn parse(origin: Origin, text: &str) -> Option<Self> {
        let mut loss = Self {
            origin,
            declared_at: DateTime::default(),
            kept: (0, 0),
            reason: String::new(),
            noticed: Vec::new(),
            lost: Vec::new(),
        };
        for line in text.lines().skip(2) {
            let (name, said) = line.split_once(' ')?;
            let words: Vec<&str> = said.split(' ').collect();
            match (name, &words[..]) {
                ("time", [time]) => loss.declared_at = time.parse().ok()?,
                ("kept", [size, last]) => loss.kept = (size.parse().ok()?, last.parse().ok()?),
                ("reason", _) => loss.reason = serde_json::from_str(said).ok()?,
                ("noticed", [partition, known, found]) => {
                    loss.noticed.push((partition.parse().ok()?, known.parse().ok()?, found.parse().ok()?));
                }
                ("lost", [size, root]) => loss.lost.push((size.parse().ok()?, Hash::parse_hash(root).ok()?.0)),
                _ => return None,
            }
        }
        Some(loss)
    }

    /// For people: the tree, its loss, and the reason.
    #[must_use]
    pub fn told(&self, name: &str) -> String {
        let (kept, last) = self.kept;
        let when = self.declared_at.format("%Y-%m-%d %H:%M:%S UTC");
        let signed = match self.lost.iter().map(|(size, _)| *size).max() {
            Some(most) => format!(
                "of the {most} events that were signed, the first {kept} are sure to be kept (up to position {}:{last}); \
                 {} signed heads are not those of the log",
                self.origin.ledger.partition(),
                self.lost.len()
            ),
            None => "no signed head is missing".to_owned(),
        };
        let noticed = self.noticed.iter().map(|(partition, known, found)| {
            format!("; partition {partition} was known up to {known}, and went up to {found} when that was noticed")
        });
        format!("{name}: {signed}{}. Declared at {when}: {}", noticed.collect::<String>(), self.reason)
    }
}

/// All declared losses, each note once.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    pub declared: Vec<Loss>,
    excused: HashMap<LedgerId, HashSet<LostHead>>,
}

impl Losses {
    /// Adds a note; one that is known already changes nothing.
    pub fn add(&mut self, loss: Loss) {
        if !self.declared.contains(&loss) {
            self.excused.entry(loss.origin.ledger).or_default().extend(loss.lost.iter().copied());
            self.declared.push(loss);
        }
    }

    /// The heads of a tree that are declared lost.
    pub(super) fn of(&self, ledger: LedgerId) -> HashSet<LostHead> {
        self.excused.get(&ledger).cloned().unwrap_or_default()
    }

    /// Whether this head is declared lost.
    #[must_use]
    pub fn excuses(&self, ledger: LedgerId, head: LostHead) -> bool {
        self.excused.get(&ledger).is_some_and(|heads| heads.contains(&head))
    }
}

/// The stored notes, with their trees.
pub async fn notes(executor: impl PgExecutor<'_>) -> Result<Vec<(LedgerId, String)>, sqlx::Error> {
    let rows: Vec<(Uuid, String)> =
        sqlx::query_as("select ledger_id, note from ledger_losses order by declared_at, ledger_id, part")
            .fetch_all(executor)
            .await?;
    Ok(rows.into_iter().map(|(ledger, note)| (LedgerId::from_uuid(ledger), note)).collect())
}

/// The declared losses of one tree, as they were signed.
pub async fn notes_of(executor: impl PgExecutor<'_>, ledger: LedgerId) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("select note from ledger_losses where ledger_id = $1 order by declared_at, part")
        .bind(ledger.uuid())
        .fetch_all(executor)
        .await
}

/// Number of declared losses of these trees, without those that have none.
pub(super) async fn counts(
    executor: impl PgExecutor<'_>,
    ledgers: &[LedgerId],
) -> Result<HashMap<LedgerId, i64>, sqlx::Error> {
    let ids: Vec<Uuid> = ledgers.iter().map(|ledger| ledger.uuid()).collect();
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "select ledger_id, count(distinct declared_at) from ledger_losses where ledger_id = any ($1) group by 1",
    )
    .bind(ids)
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|(ledger, count)| (LedgerId::from_uuid(ledger), count)).collect())
}

/// The declared losses in the checkpoint file; skips lines that these keys did not sign.
pub fn in_file(path: &Path, keys: &[PublicKey]) -> std::io::Result<Vec<Loss>> {
    let mut losses = Vec::new();
    for line in file::read(path)? {
        let (_, note) = line?;
        losses.extend(note.filter(|note| Loss::is_one(note)).and_then(|note| Loss::open(&note, keys).ok()));
    }
    Ok(losses)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use hookledger_aggregates::OrganizationId;

    use super::*;

    fn keys(id: u8) -> LedgerKeys {
        LedgerKeys::derive(&format!("k{id}:{}", STANDARD.encode([id; 32])).parse().unwrap())
    }

    fn loss() -> Loss {
        let ledger = LedgerId::organization(OrganizationId::from_slug("acme"));
        Loss {
            origin: Origin::new("https://hooks.example.com", ledger),
            declared_at: DateTime::from_timestamp_micros(1_764_072_245_000_000).unwrap(),
            kept: (105, 5_570),
            reason: "a replica\nlost 1 \"minute\"".to_owned(),
            noticed: vec![(3, 5_678, 5_570)],
            lost: vec![(108, [7; 32]), (110, [8; 32])],
        }
    }

    #[test]
    fn a_declared_loss_is_opened_as_it_was_signed_and_by_nobody_elses_key() {
        let note = loss().sign(&keys(1)).unwrap().remove(0);
        assert!(Loss::is_one(&note));
        assert_eq!(Loss::open(&note, &keys(1).public()).unwrap(), loss());
        assert!(Loss::open(&note, &keys(2).public()).is_err());
        for (from, to) in [("lost 110", "lost 111"), ("kept 105", "kept 15"), ("reason", "lost 1 AA==\nreason")] {
            assert!(Loss::open(&note.replace(from, to), &keys(1).public()).is_err(), "{from}");
        }
    }

    #[test]
    fn it_excuses_exactly_the_heads_that_it_names() {
        let mut losses = Losses::default();
        losses.add(loss());
        losses.add(loss());
        assert_eq!(losses.declared.len(), 1);
        let ledger = loss().origin.ledger;
        assert!(losses.excuses(ledger, (110, [8; 32])));
        assert!(!losses.excuses(ledger, (110, [7; 32])));
        assert!(!losses.excuses(ledger, (109, [8; 32])));
        assert!(!losses.excuses(LedgerId::organization(OrganizationId::PLATFORM), (110, [8; 32])));
    }

    #[test]
    fn many_heads_are_several_notes() {
        let lost = (1..=12_000).map(|size| (size, [9; 32])).collect();
        let notes = Loss { lost, ..loss() }.sign(&keys(1)).unwrap();
        let opened: Vec<Loss> = notes.iter().map(|note| Loss::open(note, &keys(1).public()).unwrap()).collect();
        assert_eq!(opened.iter().map(|loss| loss.lost.len()).collect::<Vec<_>>(), [5_000, 5_000, 2_000]);
    }
}
