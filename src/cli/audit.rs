//! `hookledger audit`: exports a ledger, and verifies a store or an export.
//!
//! Exit code of a verification: 0 if nothing is wrong, 1 if something is wrong, 2 if it could not be made.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::Utc;
use clap::{Args, Subcommand};
use hookledger_aggregates::access::{Access, AccessCommand, AccessEvent};
use hookledger_aggregates::{Label, Metadata, OrganizationId};
use hookledger_projections::organizations;
use uuid::Uuid;

use crate::audit::checkpoint::{LedgerKeys, PublicKey};
use crate::audit::export::read;
use crate::audit::export::write::{Export, ExportError, Exported, Unfinished};
use crate::audit::file::CheckpointFile;
use crate::audit::verify::store::{StoreCheck, StoreCheckError};
use crate::audit::verify::{KeySource, Verification, report};
use crate::audit::{FOLLOWER, LedgerError, LedgerId, Ledgers};
use crate::cli::progress::Progress;
use crate::log::CommandError;
use crate::node::config::StoreSettings;
use crate::node::keys::{self, KeysError};
use crate::node::{Core, NodeError};
use crate::platform::secrets::vault::Vault;
use crate::platform::store::{Store, Use};

/// How long an export waits until the event that it just recorded is in the ledger and signed.
const SIGNED_LIMIT: Duration = Duration::from_secs(600);

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Writes an organization's ledger to a file that can be verified without a server.
    Export(Box<ExportSettings>),
    /// Verifies that nothing was changed, removed, or reordered, in the database or in an export.
    Verify(Box<VerifySettings>),
    /// Records a signed statement that a promoted or restored database lacks the end of its log. Every later check
    /// shows it. Without `--yes`, only shows what is missing.
    DeclareLoss(Box<DeclareSettings>),
}

#[derive(Args, Clone, Debug)]
pub struct ExportSettings {
    /// Slug of the organization.
    pub organization: String,
    /// Output file; `hookledger-ORG.jsonl` by default. An existing file is replaced.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub ledger: LedgerSettings,
}

#[derive(Args, Clone, Debug)]
pub struct VerifySettings {
    /// An export file. Verifying it needs no server, database, or network. Without it, the database is verified.
    pub file: Option<PathBuf>,
    /// Verify only the organization with this slug.
    #[arg(long, value_name = "SLUG", conflicts_with = "file")]
    pub organization: Option<String>,
    /// A trusted key, as `hookledger ledger-key` prints it. Repeat it for several keys. By default, the keys of this
    /// deployment, or those that the file names.
    #[arg(long, value_name = "KEY")]
    pub public_key: Vec<PublicKey>,
    /// Also writes an HTML report to this file.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    #[command(flatten)]
    pub ledger: LedgerSettings,
}

#[derive(Args, Clone, Debug)]
pub struct DeclareSettings {
    /// The cause of the loss. It is signed, and every later check shows it.
    #[arg(long)]
    pub reason: String,
    /// Sign and record the statement.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub ledger: LedgerSettings,
}

#[derive(Args, Clone, Debug)]
pub struct LedgerSettings {
    #[command(flatten)]
    pub store: StoreSettings,
    /// File to which the server appends checkpoints; by default `checkpoints.jsonl` in the data directory. `none`
    /// for no file.
    #[arg(long, env = "HOOKLEDGER_CHECKPOINT_FILE", value_name = "FILE")]
    pub checkpoint_file: Option<PathBuf>,
}

impl LedgerSettings {
    pub(super) fn checkpoint_file(&self) -> Option<PathBuf> {
        self.store.checkpoint_file(self.checkpoint_file.as_deref())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Store(#[from] crate::platform::store::StoreError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Check(#[from] StoreCheckError),
    #[error("could not record the export in the log: {0}")]
    Note(#[from] CommandError<std::convert::Infallible>),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Sign(#[from] crate::audit::checkpoint::CheckpointError),
    #[error("no organization has the slug {0:?}")]
    NoOrganization(String),
    #[error("the event of this export is not in the ledger after {} minutes. Check whether a server of an earlier release is running", SIGNED_LIMIT.as_secs() / 60)]
    NotSigned,
}

/// Metadata of the operator, who ran the command.
fn operator() -> Metadata {
    Metadata { agent: Some(Label::new("command line")), ..Metadata::default() }
}

/// A progress bar on a terminal, and nothing elsewhere.
pub(super) fn bar(what: &'static str, unit: &'static str) -> impl FnMut(u64, u64) {
    let mut progress = std::io::stderr().is_terminal().then(|| Progress::new(what, unit));
    move |done, of| {
        if let Some(progress) = &mut progress {
            progress.set(done, of);
            if done >= of {
                progress.end();
            }
        }
    }
}

/// Exports a ledger. The ledger includes the event of this export.
pub async fn export(store: &Store, settings: &ExportSettings) -> Result<(PathBuf, Exported), AuditError> {
    let core = Core::start(store, &settings.ledger.store).await?;
    let exported = export_from(&core, store, settings).await;
    core.stop().await;
    exported
}

async fn export_from(core: &Core, store: &Store, settings: &ExportSettings) -> Result<(PathBuf, Exported), AuditError> {
    let slug = settings.organization.as_str();
    let organization = OrganizationId::from_slug(slug);
    let mut tenant = core.tenants.of(organization).await.map_err(sqlx::Error::from)?;
    let known = organizations::find(&mut *tenant, organization).await?;
    drop(tenant);
    known.ok_or_else(|| AuditError::NoOrganization(slug.to_owned()))?;
    core.follow_ledger(store).await?;
    let note = AccessEvent::AuditExported { format: Label::new("ledger"), filter: Label::new("{}") };
    let command = AccessCommand::Note(note);
    let place = core.commands.execute::<Access>(organization, organization.uuid(), command, &operator()).await?;
    let position = place.map_or(0, |place| place.position);
    let master = keys::master(&settings.ledger.store)?;
    let base_url = settings.ledger.store.base_url.0.clone();
    let file = settings.ledger.checkpoint_file().map(CheckpointFile::new);
    let signing = LedgerKeys::derive(&master);
    let ledgers = Ledgers::new(core.pool.clone(), Uuid::new_v4(), LedgerKeys::derive(&master), base_url, file, None);
    let ledger = LedgerId::organization(organization);
    let begun = Instant::now();
    if let Some(place) = place
        && !core.checkpoints.wait_for(&[FOLLOWER], place, SIGNED_LIMIT).await?
    {
        return Err(AuditError::NotSigned);
    }
    let path = settings.out.clone().unwrap_or_else(|| format!("hookledger-{slug}.jsonl").into());
    loop {
        // The head is signed at most once per second.
        let is_signed = ledgers.fresh_checkpoint(ledger).await?.is_some_and(|signed| signed.last >= position);
        if is_signed {
            let mut progress = bar("exporting", "events");
            let export = Export {
                pool: core.pool.clone(),
                keys: &signing,
                origin: ledgers.origin(ledger),
                slug,
                progress: &mut progress,
            };
            match export.run(&path, Utc::now()).await {
                // Waits until the removal is signed too.
                Err(ExportError::Removing) if begun.elapsed() <= SIGNED_LIMIT => {}
                exported => return Ok((path, exported?)),
            }
        }
        if begun.elapsed() > SIGNED_LIMIT {
            return Err(AuditError::NotSigned);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Verifies the store, and records the verification in the log.
pub async fn verify_store(store: &Store, settings: &VerifySettings) -> Result<Verification, AuditError> {
    let pool = store.pool(Use::Work).await?;
    let master = keys::master(&settings.ledger.store)?;
    let (keys, key_source) = match &settings.public_key[..] {
        [] => (LedgerKeys::derive(&master).public(), KeySource::Deployment),
        given => (given.to_vec(), KeySource::Given),
    };
    if let Some(slug) = &settings.organization {
        let id = OrganizationId::from_slug(slug);
        let mut tenant = store.tenants().await?.of(id).await.map_err(sqlx::Error::from)?;
        organizations::find(&mut *tenant, id).await?.ok_or_else(|| AuditError::NoOrganization(slug.clone()))?;
    }
    let file = settings.ledger.checkpoint_file();
    let mut progress = bar("verifying", "events");
    let check = StoreCheck {
        vault: Vault::new(pool.clone(), master),
        pool,
        keys,
        key_source,
        organization: settings.organization.as_deref(),
        checkpoint_file: file.as_deref(),
        declaring: false,
        progress: &mut progress,
    };
    let mut found = check.run(Utc::now()).await?;
    if found.findings.has_missing() {
        found.notes.push(
            "That it was checked is not noted in the log: where events are missing, another would take their place."
                .to_owned(),
        );
    } else if let Err(error) = note(store, settings, &found).await {
        found.notes.push(format!("Could not record this verification in the log: {error}"));
    }
    Ok(found)
}

async fn note(store: &Store, settings: &VerifySettings, found: &Verification) -> Result<(), AuditError> {
    let organization = settings.organization.as_deref().map_or(OrganizationId::PLATFORM, OrganizationId::from_slug);
    let finding = found.findings.first().map(|finding| Label::new(&finding.to_string()));
    let event = AccessEvent::LedgerVerified { ledgers: found.ledgers, events: found.tally.events, finding };
    let core = Core::start(store, &settings.ledger.store).await?;
    let command = AccessCommand::Note(event);
    let noted = core.commands.execute::<Access>(organization, organization.uuid(), command, &operator()).await;
    core.stop().await;
    noted?;
    Ok(())
}

/// Verifies an export.
pub fn verify_file(file: &Path, settings: &VerifySettings) -> Result<Verification, AuditError> {
    let mut progress = bar("verifying", "bytes");
    read::verify(file, &settings.public_key, Utc::now(), &mut progress)
        .map_err(|source| AuditError::File { path: file.to_owned(), source })
}

/// Writes the report, if requested.
pub fn write_report(found: &Verification, settings: &VerifySettings) -> Result<(), AuditError> {
    let Some(path) = &settings.report else { return Ok(()) };
    Unfinished::write(path, report::html(found).as_bytes())
        .map_err(|source| AuditError::File { path: path.clone(), source })
}
