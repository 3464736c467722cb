//! Writes an export: everything that a checkpoint covers, in one state of the database, line by line. The
//! tree is rebuilt meanwhile, and an export without the signed root is discarded.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat, Utc};
use futures::TryStreamExt as _;
use hookledger_aggregates::OrganizationId;
use sha2::{Digest as _, Sha256};
use sqlx::{Connection as _, PgConnection, PgPool};

use super::format::{EventLine, Header, LONGEST_LINE, Line, RequestLine, Trailer, VERSION};
use crate::audit::LedgerId;
use crate::audit::checkpoint::{Checkpoint, CheckpointError, LedgerKeys, Origin};
use crate::audit::lookup::{self, Signed};
use crate::audit::store::StoreError;
use crate::audit::tree::Edge;
use crate::audit::verify::has_request;
use crate::log;

/// Checkpoints read at once.
const PAGE: i64 = 200;

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("could not write a line: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the event at position {0} is too long for a line of an export")]
    TooLong(i64),
    #[error("the ledger of {0} has no checkpoint yet")]
    NoCheckpoint(String),
    /// The file would contain neither the requests nor the events of their removal.
    #[error("requests were removed since the last checkpoint was signed")]
    Removing,
    #[error(
        "the log differs from its signed checkpoints, so it was not exported: the checkpoint of {0} leaves has another root. \
         Run `hookledger audit verify` to find the position"
    )]
    NotIntact(u64),
}

/// Summary of an export.
#[derive(Clone, Debug)]
pub struct Exported {
    pub trailer: Trailer,
    pub checkpoint: Checkpoint,
    /// Checkpoints omitted because none of the available keys signed them.
    pub left_out: u64,
}

/// One organization's ledger.
pub struct Export<'a> {
    /// Acts as `hookledger_worker`.
    pub pool: PgPool,
    pub keys: &'a LedgerKeys,
    pub origin: Origin,
    pub slug: &'a str,
    /// Receives the events written and their total.
    pub progress: &'a mut dyn FnMut(u64, u64),
}

impl Export<'_> {
    /// Writes the file, under a temporary name first, so that a file with the final name is always complete.
    pub async fn run(self, path: &Path, now: DateTime<Utc>) -> Result<Exported, ExportError> {
        let at = |source| ExportError::File { path: path.to_owned(), source };
        let unfinished = Unfinished::create(path).map_err(at)?;
        let file = unfinished.file.try_clone().map_err(at)?;
        let mut out =
            Writer { out: BufWriter::with_capacity(1 << 20, file), digest: Sha256::new(), line: Vec::new(), path };
        let exported = self.write(&mut out, now).await?;
        out.out.into_inner().map_err(|error| at(error.into_error()))?.sync_all().map_err(at)?;
        unfinished.finish().map_err(at)?;
        Ok(exported)
    }

    async fn write(self, out: &mut Writer<'_>, now: DateTime<Utc>) -> Result<Exported, ExportError> {
        let mut rows = self.pool.acquire().await?.detach();
        let mut lookups = self.pool.acquire().await?.detach();
        let snapshot = log::begin(&mut rows, None).await?;
        log::begin(&mut lookups, Some(&snapshot)).await?;
        let ledger = LedgerId::organization(OrganizationId::from_slug(self.slug));
        let newest = lookup::checkpoint(&mut lookups, ledger, None).await?;
        let newest = newest.ok_or_else(|| ExportError::NoCheckpoint(self.slug.to_owned()))?;
        if log::removed_after(&mut lookups, ledger.owner(), newest.last).await? {
            return Err(ExportError::Removing);
        }
        let public_keys = self.keys.public();
        out.line(&Line::Export(Header {
            version: VERSION,
            organization: self.slug.to_owned(),
            origin: self.origin.to_string(),
            exported_at: now.to_rfc3339_opts(SecondsFormat::Micros, true),
            public_keys: public_keys.iter().map(ToString::to_string).collect(),
        }))?;
        let mut checkpoints = Checkpoints { ledger, rows: VecDeque::new(), after: 0 };
        let mut next = checkpoints.next(&mut lookups).await?;
        let (mut edge, mut requests, mut written, mut left_out, mut last) = (Edge::default(), 0, 0, 0, None);
        let mut commits = log::walk(&mut rows, ledger.partition(), Some(ledger.owner()), newest.last);
        while let Some(row) = commits.try_next().await? {
            let commit = row.read()?;
            for walked in commit.events() {
                let leaf = walked.event.leaf_hash();
                edge.push(leaf, &mut Vec::new());
                out.line(&Line::Event(EventLine::new(&walked.event, leaf)?)).map_err(|error| match error {
                    ExportError::TooLong(_) => ExportError::TooLong(walked.event.position),
                    other => other,
                })?;
                if let Some(kept) = walked.kept.filter(|_| has_request(walked.event.event_type)) {
                    for line in RequestLine::of(walked.event.position, kept.headers, kept.body) {
                        out.line(&Line::Request(line))?;
                    }
                    requests += 1;
                }
                while let Some(signed) = next.take_if(|signed| signed.size <= edge.size()) {
                    if signed.size != edge.size() || signed.root != edge.root() {
                        return Err(ExportError::NotIntact(signed.size));
                    }
                    match Checkpoint::open(&signed.note, &public_keys) {
                        Ok(checkpoint) => {
                            out.line(&Line::Checkpoint(signed.note.into()))?;
                            written += 1;
                            last = Some(checkpoint);
                        }
                        Err(_) => left_out += 1,
                    }
                    next = checkpoints.next(&mut lookups).await?;
                }
                if edge.size().is_multiple_of(1_000) {
                    (self.progress)(edge.size(), newest.size);
                }
            }
        }
        drop(commits);
        (self.progress)(edge.size(), newest.size);
        let checkpoint = last.filter(|last| last.size == newest.size && edge.size() == newest.size);
        let checkpoint = checkpoint.ok_or(ExportError::NotIntact(newest.size))?;
        let _ = (lookups.close().await, rows.close().await);
        let trailer = Trailer {
            origin: self.origin.to_string(),
            events: edge.size(),
            requests,
            checkpoints: written,
            sha256: hex::encode(out.digest.clone().finalize()),
        };
        let note = self.keys.sign_note(&self.origin, trailer.text().as_bytes())?;
        out.line(&Line::Signed(note.into()))?;
        Ok(Exported { trailer, checkpoint, left_out })
    }
}

/// The checkpoints of a tree, in order.
struct Checkpoints {
    ledger: LedgerId,
    rows: VecDeque<Signed>,
    after: u64,
}

impl Checkpoints {
    async fn next(&mut self, connection: &mut PgConnection) -> Result<Option<Signed>, StoreError> {
        if self.rows.is_empty() {
            self.rows = lookup::checkpoints_after(connection, self.ledger, self.after, PAGE).await?.into();
            self.after = self.rows.back().map_or(self.after, |row| row.size);
        }
        Ok(self.rows.pop_front())
    }
}

/// Writes lines and hashes them.
struct Writer<'a> {
    out: BufWriter<File>,
    digest: Sha256,
    line: Vec<u8>,
    path: &'a Path,
}

impl Writer<'_> {
    fn line(&mut self, line: &Line<'_>) -> Result<(), ExportError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        if self.line.len() > LONGEST_LINE {
            return Err(ExportError::TooLong(0));
        }
        self.digest.update(&self.line);
        self.out.write_all(&self.line).map_err(|source| ExportError::File { path: self.path.to_owned(), source })
    }
}

/// A file with a temporary name, deleted unless it is finished.
#[derive(Debug)]
pub struct Unfinished {
    file: File,
    name: PathBuf,
    path: PathBuf,
}

impl Unfinished {
    pub fn create(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
        let unfinished = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
        let _ = fs::remove_file(&unfinished);
        let file = File::options().create_new(true).write(true).mode(0o600).open(&unfinished)?;
        Ok(Self { file, name: unfinished, path: path.to_owned() })
    }

    /// Writes a small file.
    pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut unfinished = Self::create(path)?;
        unfinished.file.write_all(bytes)?;
        unfinished.finish()
    }

    /// Gives the file its name, durably.
    pub fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.name, &self.path)?;
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.name);
    }
}
