//! Reports undeclared losses: tails that nodes noticed, and signed heads that the database lacks, as after a
//! restore with a newer checkpoint file.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Loss, Losses, LostHead};
use crate::audit::LedgerId;
use crate::audit::checkpoint::{Checkpoint, PublicKey};
use crate::audit::file;
use crate::log::noticed_since;
use crate::platform::vitals::Vitals;

const EVERY: Duration = Duration::from_secs(1);
/// Heads looked up in the database together, and remembered as missing.
const PORTION: usize = 5_000;
/// Names of the warnings.
const TAIL: &str = "lost-tail";
const RESTORED: &str = "restored";

/// Watches for undeclared losses.
pub struct LossWatch {
    pub pool: PgPool,
    pub keys: Vec<PublicKey>,
    /// The checkpoint file outside the database.
    pub file: Option<PathBuf>,
    pub vitals: Vitals,
}

impl LossWatch {
    /// Compares the file with the database once, and reports undeclared losses until stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut missing = None;
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            let looked = tokio::time::timeout(Duration::from_secs(60), self.look(&mut missing)).await;
            match looked {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "could not check whether the log lost events; retrying"),
                Err(_) => tracing::warn!("the check for lost events timed out"),
            }
        }
    }

    async fn look(&self, missing: &mut Option<Vec<(LedgerId, LostHead)>>) -> Result<(), sqlx::Error> {
        let declared: Option<DateTime<Utc>> =
            sqlx::query_scalar("select max(declared_at) from ledger_losses").fetch_one(&self.pool).await?;
        let tails = noticed_since(&mut *self.pool.acquire().await?, declared).await?;
        #[expect(clippy::cast_precision_loss, reason = "for a graph")]
        metrics::gauge!("hookledger_lost_tails_undeclared").set(tails.len() as f64);
        if let Some(first) = tails.first() {
            self.vitals.warn(
                TAIL,
                format!(
                    "the log lost its end in {} partitions (partition {} was known up to position {} and now ends at {}): \
                     run `hookledger audit declare-loss`",
                    tails.len(),
                    first.partition,
                    first.known,
                    first.found
                ),
            );
        } else {
            self.vitals.unwarn(TAIL);
        }
        let before = match missing.take() {
            Some(before) => before,
            None => self.heads_of_file().await?,
        };
        let still = self.absent(before).await?;
        match still.len() {
            0 => self.vitals.unwarn(RESTORED),
            count => {
                self.vitals.warn(
                    RESTORED,
                    format!(
                        "the database lacks {count} signed checkpoints of the checkpoint file, so it was restored to an \
                         earlier state: run `hookledger audit declare-loss`"
                    ),
                );
            }
        }
        *missing = Some(still);
        Ok(())
    }

    /// The heads in the file that the database lacks, determined once when the node starts.
    async fn heads_of_file(&self) -> Result<Vec<(LedgerId, LostHead)>, sqlx::Error> {
        let Some(path) = self.file.clone() else { return Ok(Vec::new()) };
        let (keys, shown) = (self.keys.clone(), path.display().to_string());
        let reading = tokio::task::spawn_blocking(move || -> io::Result<_> {
            let mut heads = Vec::new();
            for line in file::read(&path)? {
                let Some(note) = line?.1 else { continue };
                if let Ok(checkpoint) = Checkpoint::read_unverified(&note) {
                    heads.push((checkpoint.origin.ledger, (checkpoint.size, checkpoint.root.0)));
                }
            }
            Ok((heads, super::in_file(&path, &keys)?))
        });
        let (heads, declared) = match reading.await.map_err(io::Error::other).and_then(|read| read) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                tracing::warn!(path = shown, %error, "could not compare the checkpoint file with the database");
                return Ok(Vec::new());
            }
        };
        let mut losses = Losses::default();
        declared.into_iter().for_each(|loss| losses.add(loss));
        let mut absent = Vec::new();
        for portion in heads.chunks(PORTION) {
            let portion = portion.iter().filter(|(ledger, head)| !losses.excuses(*ledger, *head)).copied().collect();
            absent.extend(self.absent(portion).await?);
            if absent.len() > PORTION {
                break;
            }
        }
        if !absent.is_empty() {
            tracing::error!(
                path = shown,
                checkpoints = absent.len(),
                "the database lacks signed checkpoints of the checkpoint file, so it was restored to \
                 an earlier state; run `hookledger audit declare-loss`"
            );
        }
        Ok(absent)
    }

    /// Those that the database lacks and that are not declared lost.
    async fn absent(&self, heads: Vec<(LedgerId, LostHead)>) -> Result<Vec<(LedgerId, LostHead)>, sqlx::Error> {
        if heads.is_empty() {
            return Ok(heads);
        }
        let known: Vec<(Uuid, i64, Vec<u8>)> = sqlx::query_as(
            "select c.ledger_id, c.size, c.root
             from unnest($1::uuid[], $2::bigint[]) as n (ledger_id, size)
             join ledger_checkpoints c on c.ledger_id = n.ledger_id and c.size = n.size",
        )
        .bind(heads.iter().map(|(ledger, _)| ledger.uuid()).collect::<Vec<_>>())
        .bind(heads.iter().map(|(_, (size, _))| i64::try_from(*size).unwrap_or(i64::MAX)).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await?;
        let known: std::collections::HashSet<_> = known.into_iter().collect();
        let mut losses = Losses::default();
        for (_, note) in super::notes(&self.pool).await? {
            if let Ok(loss) = Loss::open(&note, &self.keys) {
                losses.add(loss);
            }
        }
        let is_known = |(ledger, (size, root)): &(LedgerId, LostHead)| {
            known.contains(&(ledger.uuid(), i64::try_from(*size).unwrap_or(i64::MAX), root.to_vec()))
        };
        Ok(heads.into_iter().filter(|head| !is_known(head) && !losses.excuses(head.0, head.1)).collect())
    }
}
