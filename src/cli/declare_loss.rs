//! `hookledger audit declare-loss`: shows what is missing, and signs a statement about it.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use chrono::{SubsecRound as _, Utc};
use hookledger_aggregates::OrganizationId;
use sqlx::PgPool;

use super::audit::{AuditError, DeclareSettings, bar};
use crate::audit::checkpoint::{Checkpoint, LedgerKeys, Origin};
use crate::audit::file::{self, CheckpointFile};
use crate::audit::lookup::Signed;
use crate::audit::loss::{Loss, LostHead};
use crate::audit::store;
use crate::audit::verify::store::StoreCheck;
use crate::audit::verify::{KeySource, Undeclared, Verification};
use crate::audit::{LedgerError, LedgerId};
use crate::log::noticed_since;
use crate::node::keys;
use crate::platform::secrets::vault::Vault;
use crate::platform::store::{Store, Use};

/// Checkpoints restored to the database together.
const PORTION: usize = 200;

/// Shows what is missing, and declares it if requested. Returns the text for the operator.
pub async fn declare(store: &Store, settings: &DeclareSettings) -> Result<String, AuditError> {
    let reason = settings.reason.trim();
    if reason.is_empty() {
        return Err(AuditError::Refused("--reason is empty. Say what happened to the database".to_owned()));
    }
    store.migrate().await?;
    let pool = store.pool(Use::Work).await?;
    let master = keys::master(&settings.ledger.store)?;
    let signing = LedgerKeys::derive(&master);
    let path = settings.ledger.checkpoint_file();
    let mut progress = bar("verifying", "events");
    let check = StoreCheck {
        vault: Vault::new(pool.clone(), master),
        pool: pool.clone(),
        keys: signing.public(),
        key_source: KeySource::Deployment,
        organization: None,
        checkpoint_file: path.as_deref(),
        declaring: true,
        progress: &mut progress,
    };
    let mut found = check.run(Utc::now()).await?;
    if let Some(first) = found.findings.first() {
        return Err(AuditError::Refused(format!(
            "the log does not only lack its end, so nothing is declared ({} findings): {first}. A database that was \
             promoted or restored agrees with its own ledger; this one was changed",
            found.findings.count()
        )));
    }
    let undeclared = found.undeclared.take().unwrap_or_default();
    let since = found.losses.iter().map(|loss| loss.declared_at).max();
    let noticed = noticed_since(&mut *pool.acquire().await?, since).await?;
    let noticed: Vec<_> = noticed.into_iter().map(|tail| (tail.partition, tail.known, tail.found)).collect();
    let origin = |ledger| Origin::new(&settings.ledger.store.base_url.0, ledger);
    let losses = losses(&undeclared, noticed, reason, origin);
    if losses.is_empty() && undeclared.unrecorded.is_empty() {
        return Ok("No loss was found, so nothing was declared.\n".to_owned());
    }
    let told = told(&found, &losses, &undeclared);
    if !settings.yes {
        return Ok(format!("{told}Nothing was declared yet. Add --yes to sign this.\n"));
    }
    write(&pool, &losses, &undeclared, &signing, path.map(CheckpointFile::new)).await?;
    Ok(format!(
        "{told}Declared and signed. `hookledger audit verify` shows it from now on; checkpoints of these ledgers are signed \
         under another name, and consistency proofs start over.\n"
    ))
}

/// One loss per tree; that of the platform contains the tails that nodes noticed.
fn losses(
    undeclared: &Undeclared,
    noticed: Vec<(i32, i64, i64)>,
    reason: &str,
    origin: impl Fn(LedgerId) -> Origin,
) -> Vec<Loss> {
    let declared_at = Utc::now().trunc_subsecs(6);
    let new = |ledger| Loss {
        origin: origin(ledger),
        declared_at,
        kept: (0, 0),
        reason: reason.to_owned(),
        noticed: Vec::new(),
        lost: Vec::new(),
    };
    let mut losses: BTreeMap<LedgerId, Loss> = BTreeMap::new();
    for (ledger, promise, kept) in &undeclared.lost {
        // In the order of sizes, so that checkpoints before the first failure are proved.
        let loss = losses.entry(*ledger).or_insert_with(|| Loss { kept: *kept, ..new(*ledger) });
        let head = (promise.size, promise.root.0);
        if !loss.lost.contains(&head) {
            loss.lost.push(head);
        }
    }
    if !noticed.is_empty() {
        let platform = LedgerId::organization(OrganizationId::PLATFORM);
        losses.entry(platform).or_insert_with(|| new(platform)).noticed = noticed;
    }
    losses.into_values().collect()
}

fn told(found: &Verification, losses: &[Loss], undeclared: &Undeclared) -> String {
    let mut told = String::new();
    for loss in losses {
        let _ = writeln!(told, "missing: {}", loss.told(&found.name_of(loss.origin.ledger)));
    }
    let signed = undeclared.lost.iter().map(|(_, promise, _)| promise.signed_at);
    if let (Some(first), Some(last)) = (signed.clone().min(), signed.max()) {
        let time = |at: chrono::DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%S UTC").to_string();
        let _ = writeln!(told, "The missing events were signed between {} and {}.", time(first), time(last));
    }
    let lost: HashSet<(LedgerId, LostHead)> = lost_heads(undeclared);
    let held = undeclared.unrecorded.iter().filter(|head| !lost.contains(head)).count();
    if held > 0 {
        let _ = writeln!(told, "{held} valid checkpoints are missing only from the database; they will be restored.");
    }
    told
}

fn lost_heads(undeclared: &Undeclared) -> HashSet<(LedgerId, LostHead)> {
    undeclared.lost.iter().map(|(ledger, promise, _)| (*ledger, (promise.size, promise.root.0))).collect()
}

/// The database first, because everything in the file was in the database.
async fn write(
    pool: &PgPool,
    losses: &[Loss],
    undeclared: &Undeclared,
    signing: &LedgerKeys,
    file: Option<CheckpointFile>,
) -> Result<(), AuditError> {
    let lost = lost_heads(undeclared);
    let held: HashSet<_> = undeclared.unrecorded.iter().copied().filter(|head| !lost.contains(head)).collect();
    if let (Some(file), false) = (&file, held.is_empty()) {
        put_back(pool, file, &held, signing).await?;
    }
    let mut notes = Vec::new();
    let mut transaction = pool.begin().await?;
    for loss in losses {
        for (part, note) in (1_i32..).zip(loss.sign(signing)?) {
            sqlx::query("insert into ledger_losses (ledger_id, declared_at, part, note) values ($1, $2, $3, $4)")
                .bind(loss.origin.ledger.uuid())
                .bind(loss.declared_at)
                .bind(part)
                .bind(&note)
                .execute(&mut *transaction)
                .await?;
            notes.push(note);
        }
    }
    transaction.commit().await?;
    if let Some(file) = file
        && !notes.is_empty()
    {
        let path = file.path().to_owned();
        file.append(notes).await.map_err(|source| AuditError::File { path, source })?;
    }
    Ok(())
}

/// Restores valid checkpoints to the database: their events exist, only the checkpoints were lost.
async fn put_back(
    pool: &PgPool,
    file: &CheckpointFile,
    held: &HashSet<(LedgerId, LostHead)>,
    signing: &LedgerKeys,
) -> Result<(), AuditError> {
    let failed = |source| AuditError::File { path: file.path().to_owned(), source };
    let (mut signed, keys) = (Vec::new(), signing.public());
    for line in file::read(file.path()).map_err(failed)? {
        let Some(note) = line.map_err(failed)?.1 else { continue };
        let Ok(checkpoint) = Checkpoint::open(&note, &keys) else { continue };
        let Checkpoint { origin: Origin { ledger, .. }, size, root, last, signed_at } = checkpoint;
        if held.contains(&(ledger, (size, root.0))) {
            signed.push(Signed { ledger, size, root, last, signed_at, note });
        }
    }
    for portion in signed.chunks(PORTION) {
        store::keep(pool, portion).await.map_err(LedgerError::from)?;
    }
    Ok(())
}
