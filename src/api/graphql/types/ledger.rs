//! The ledger: signed heads of trees, and proofs. For an organization's admins; for super admins also the
//! platform's trees.

use async_graphql::{Context, Error, Object, SimpleObject};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use hookledger_aggregates::OrganizationId;
use uuid::Uuid;

use super::position::LogPosition;
use crate::api::graphql::context::{App, everybody, tenant};
use crate::api::graphql::errors::{Code, internal, not_found};
use crate::api::graphql::guards::rights::Viewer;
use crate::audit::lookup::{self, Signed};
use crate::audit::tree::{Hash, ProofError};
use crate::audit::{LedgerError, LedgerId};
use crate::log::stored_at;
use crate::platform::store::Tenant;

/// The events of an organization as a Merkle tree (RFC 6962): nothing in it can be changed, removed or
/// reordered unnoticed by anybody who knows an earlier checkpoint.
pub struct Ledger(LedgerId);

#[Object]
impl Ledger {
    /// The ID in the first line of its checkpoints: that of the organization, or of the platform's part of
    /// the log.
    async fn ledger_id(&self) -> Uuid {
        self.0.uuid()
    }

    /// The first line of its checkpoints, which is also the name of its key.
    async fn origin(&self, context: &Context<'_>) -> Result<String, Error> {
        Ok(App::of(context)?.ledgers.origin(self.0).to_string())
    }

    /// The key that verifies its checkpoints, in the format of C2SP signed-note: `name+id+base64`. Keep a
    /// copy of it where the operator cannot change it.
    async fn public_key(&self, context: &Context<'_>) -> Result<String, Error> {
        self.keys(context)?.into_iter().next().ok_or_else(|| internal("there is no key of the ledger"))
    }

    /// Every key that signs, in the same format, for key rotations.
    async fn public_keys(&self, context: &Context<'_>) -> Result<Vec<String>, Error> {
        self.keys(context)
    }

    /// The latest signed head, signed now if the tree has grown; or the one with exactly that size. Null if
    /// there is none.
    async fn checkpoint(&self, context: &Context<'_>, size: Option<i64>) -> Result<Option<LedgerCheckpoint>, Error> {
        let signed = match size.map(self::size).transpose()? {
            None => App::of(context)?.ledgers.fresh_checkpoint(self.0).await.map_err(refused)?,
            Some(size) => {
                let mut tenant = rows(context, self.0).await?;
                lookup::checkpoint(&mut *tenant, self.0, Some(size)).await.map_err(internal)?
            }
        };
        Ok(signed.map(LedgerCheckpoint::from))
    }

    /// Proof that the event at a position is in the tree of the latest checkpoint, or of the one with that
    /// size.
    async fn inclusion_proof(
        &self,
        context: &Context<'_>,
        position: LogPosition,
        size: Option<i64>,
    ) -> Result<InclusionProof, Error> {
        let partition = self.0.partition();
        if position.partition != partition.number() {
            return Err(Code::BadUserInput.error("This position isn't from this log."));
        }
        let size = size.map(self::size).transpose()?;
        let mut tenant = rows(context, self.0).await?;
        let ledgers = &App::of(context)?.ledgers;
        let found = ledgers.inclusion(&mut tenant, self.0, position.position, size).await.map_err(refused)?;
        let events = stored_at(&mut *tenant, None, partition, &[position.position]).await.map_err(internal)?;
        let event = events.first().ok_or_else(|| internal("the log has no event where the ledger has a leaf"))?;
        Ok(InclusionProof {
            checkpoint: found.checkpoint.into(),
            leaf_index: i64::try_from(found.place.index).unwrap_or(i64::MAX),
            leaf: STANDARD.encode(event.encode()),
            leaf_hash: event.leaf_hash().to_string(),
            hashes: texts(&found.proof),
        })
    }

    /// Proof that the tree of the first `from` events is the beginning of the latest checkpoint's tree, or of
    /// that of the checkpoint with `to` events.
    async fn consistency_proof(
        &self,
        context: &Context<'_>,
        from: i64,
        to: Option<i64>,
    ) -> Result<ConsistencyProof, Error> {
        let (start, end) = (size(from)?, to.map(size).transpose()?);
        let mut tenant = rows(context, self.0).await?;
        let ledgers = &App::of(context)?.ledgers;
        let found = ledgers.consistency(&mut tenant, self.0, start, end).await.map_err(refused)?;
        Ok(ConsistencyProof { from, checkpoint: found.checkpoint.into(), hashes: texts(&found.proof) })
    }
}

impl Ledger {
    fn keys(&self, context: &Context<'_>) -> Result<Vec<String>, Error> {
        let ledgers = &App::of(context)?.ledgers;
        let name = ledgers.origin(self.0).to_string();
        Ok(ledgers.public_keys().iter().map(|key| key.named(&name)).collect())
    }
}

/// The ledger of an organization. For its admins.
pub(crate) fn of(context: &Context<'_>, organization: OrganizationId) -> Result<Ledger, Error> {
    Viewer::of(context)?.must_manage(organization)?;
    Ok(Ledger(LedgerId::organization(organization)))
}

/// The trees that belong to no organization. For super admins.
pub(crate) fn of_the_platform(context: &Context<'_>) -> Result<Vec<Ledger>, Error> {
    Viewer::of(context)?.must_be_super_admin()?;
    Ok(LedgerId::of_the_platform().map(Ledger).collect())
}

/// A connection that sees the tree and its events: those of one organization, or of all if the tree has
/// events of many.
async fn rows(context: &Context<'_>, ledger: LedgerId) -> Result<Tenant, Error> {
    if ledger.is_of_many() { everybody(context).await } else { tenant(context, ledger.owner()).await }
}

/// A signed head of a tree.
#[derive(SimpleObject)]
pub struct LedgerCheckpoint {
    /// Events in the tree.
    size: i64,
    /// The root over them, base64.
    root_hash: String,
    signed_at: DateTime<Utc>,
    /// Log position of the tree's last event.
    last_position: LogPosition,
    /// The signed checkpoint (C2SP tlog-checkpoint).
    note: String,
}

impl From<Signed> for LedgerCheckpoint {
    fn from(signed: Signed) -> Self {
        let partition = signed.ledger.partition().number();
        Self {
            size: i64::try_from(signed.size).unwrap_or(i64::MAX),
            root_hash: signed.root.to_string(),
            signed_at: signed.signed_at,
            last_position: LogPosition { partition, position: signed.last },
            note: signed.note,
        }
    }
}

/// Proof that an event is in a tree (RFC 6962, section 2.1.1).
#[derive(SimpleObject)]
pub struct InclusionProof {
    checkpoint: LedgerCheckpoint,
    /// Number of the leaf, from 0.
    leaf_index: i64,
    /// The bytes of the leaf, base64: the event as stored in the log.
    leaf: String,
    /// SHA-256 over a zero byte and the leaf, base64.
    leaf_hash: String,
    /// From the leaf to the root, base64.
    hashes: Vec<String>,
}

/// Proof that a tree is the beginning of another (RFC 6962, section 2.1.2).
#[derive(SimpleObject)]
pub struct ConsistencyProof {
    /// Events in the earlier tree.
    from: i64,
    /// The later one.
    checkpoint: LedgerCheckpoint,
    /// Base64.
    hashes: Vec<String>,
}

fn texts(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(ToString::to_string).collect()
}

fn size(size: i64) -> Result<u64, Error> {
    u64::try_from(size).map_err(|_| Code::BadUserInput.error("A size can't be negative."))
}

fn refused(error: LedgerError) -> Error {
    match error {
        LedgerError::Proof(ProofError::NotLater { .. }) => Code::BadUserInput.error(error.to_string()),
        LedgerError::NotYet => Code::Unavailable.error("This event isn't in a signed tree yet. Try again in a second."),
        LedgerError::NoEvent | LedgerError::NoCheckpoint(_) => not_found(),
        LedgerError::Store(_) | LedgerError::Checkpoint(_) | LedgerError::Proof(_) => internal(error),
    }
}
