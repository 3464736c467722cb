//! Read models as of some time, in a separate schema, to look at and to compare.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use hookledger_aggregates::{OrganizationId, Partition};
use sqlx::Connection as _;

use super::compare::{self, Comparison};
use super::copies::become_worker;
use super::switch::take_turn;
use super::{Copies, RebuildError};
use crate::log::{LogPosition, Positions, positions_at, recorded_at};
use crate::platform::store::Store;

/// Beginning of the comment on a schema that a replay created, and may therefore drop.
const MARK: &str = "Hookledger: replayed";

/// Where a replay ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// Everything recorded until then.
    Time(DateTime<Utc>),
    /// Everything of that event's partition up to it, and everything recorded until then in the others.
    Position(LogPosition),
}

impl FromStr for AsOf {
    type Err = RebuildError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || RebuildError::AsOf(text.to_owned());
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::Time(time.with_timezone(&Utc)));
        }
        let (partition, position) = text.split_once(':').ok_or_else(unknown)?;
        let partition = partition.parse().ok().and_then(Partition::new).ok_or_else(unknown)?;
        let position = position.parse().ok().filter(|position| *position > 0).ok_or_else(unknown)?;
        Ok(Self::Position(LogPosition { partition, position }))
    }
}

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => time.format("%Y-%m-%dT%H:%M:%S%.fZ").fmt(f),
            Self::Position(at) => write!(f, "{}:{}", at.partition, at.position),
        }
    }
}

/// A replay: the read models, the point in the log, and the schema.
#[derive(Clone, Debug)]
pub struct Replay {
    pub as_of: AsOf,
    /// The organization's slug; `None` for all.
    pub organization: Option<String>,
    /// A schema of an earlier replay is replaced; no other schema is touched.
    pub schema: String,
}

/// Result of a replay.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The last applied position of each partition.
    pub positions: Positions,
    /// The live read models compared with those of the replay (the copy).
    pub comparison: Comparison,
}

impl Replay {
    /// Replays all read models. `told` receives the projection, the positions done, and their total.
    pub async fn run(&self, store: &Store, mut told: impl FnMut(&str, i64, i64)) -> Result<Replayed, RebuildError> {
        let mut copies = open(store, &self.schema).await?;
        let organization = self.organization.as_deref().map(OrganizationId::from_slug);
        let target = self.target(&mut copies, organization).await?;
        copies.organization = organization;
        drop_ours(&mut copies).await?;
        let of_whom = self.organization.as_ref().map(|slug| format!(", of {slug}")).unwrap_or_default();
        let projections = hookledger_projections::all();
        copies.make(&projections, false, &format!("{MARK} as of {}{of_whom}.", self.as_of)).await?;
        let of: i64 = target.iter().sum();
        for projection in &projections {
            let name = projection.name();
            told(name, 0, of);
            copies.advance(projection.as_ref(), &target, |done| told(name, done, of)).await?;
        }
        let mut comparison = Comparison::default();
        let (live, copy) = (copies.live.clone(), copies.schema.clone());
        let mut transaction = copies.owner.begin_with("begin isolation level repeatable read").await?;
        become_worker(&mut transaction, &copy, &live).await?;
        sqlx::raw_sql(
            "set local enable_hashjoin to on; set local enable_mergejoin to on; set local statement_timeout to 0",
        )
        .execute(&mut *transaction)
        .await?;
        for table in projections.iter().flat_map(|projection| projection.tables()) {
            let organization = organization.map(OrganizationId::uuid);
            comparison.tables.push(compare::compare(&mut transaction, &live, &copy, table, organization).await?);
        }
        transaction.commit().await?;
        Ok(Replayed { positions: target, comparison })
    }

    async fn target(
        &self,
        copies: &mut Copies,
        organization: Option<OrganizationId>,
    ) -> Result<Positions, RebuildError> {
        let mut transaction = copies.owner.begin().await?;
        sqlx::query("set local role hookledger_worker").execute(&mut *transaction).await?;
        let mut target = match self.as_of {
            AsOf::Time(time) => positions_at(&mut transaction, time).await?,
            AsOf::Position(at) => {
                let time = recorded_at(&mut *transaction, at).await?.ok_or(RebuildError::NoEvent(at))?;
                let mut target = positions_at(&mut transaction, time).await?;
                target[at.partition.index()] = at.position;
                target
            }
        };
        if let Some(organization) = organization {
            let known: bool = sqlx::query_scalar("select exists (select from organizations where id = $1)")
                .bind(organization.uuid())
                .fetch_one(&mut *transaction)
                .await?;
            if !known {
                return Err(RebuildError::NoOrganization(self.organization.clone().unwrap_or_default()));
            }
            for partition in Partition::all().filter(|partition| *partition != organization.partition()) {
                target[partition.index()] = 0;
            }
        }
        Ok(target)
    }
}

/// Drops the schema of a replay; returns false if it does not exist.
///
/// # Errors
/// [`RebuildError::NotOurs`] if the schema is not a replay.
pub async fn drop_replay(store: &Store, schema: &str) -> Result<bool, RebuildError> {
    let mut copies = open(store, schema).await?;
    drop_ours(&mut copies).await
}

async fn open(store: &Store, schema: &str) -> Result<Copies, RebuildError> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let begins = schema.starts_with(|c: char| c.is_ascii_lowercase());
    if !begins || schema.len() > 48 || !schema.chars().all(is_plain) {
        return Err(RebuildError::SchemaName(schema.to_owned()));
    }
    let mut copies = Copies::open(store, schema.to_owned()).await?;
    take_turn(&mut copies.owner, schema).await?;
    Ok(copies)
}

async fn drop_ours(copies: &mut Copies) -> Result<bool, RebuildError> {
    let schema = copies.schema.clone();
    let about: Option<Option<String>> =
        sqlx::query_scalar("select obj_description(oid, 'pg_namespace') from pg_namespace where nspname = $1")
            .bind(&schema)
            .fetch_optional(&mut copies.owner)
            .await?;
    match about {
        None => Ok(false),
        Some(Some(about)) if about.starts_with(MARK) => {
            copies.drop_schema(&schema).await?;
            Ok(true)
        }
        Some(_) => Err(RebuildError::NotOurs(schema)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_or_a_place_is_as_of() {
        let time = "2026-01-31T12:00:00Z".parse::<AsOf>().unwrap();
        assert_eq!(time.to_string(), "2026-01-31T12:00:00Z");
        assert_eq!("2026-01-31T13:00:00+01:00".parse::<AsOf>().unwrap(), time);
        assert_eq!("3:1500".parse::<AsOf>().unwrap().to_string(), "3:1500");
        for wrong in ["", "3", "16:1", "3:0", "3:-1", "yesterday", "2026-01-31"] {
            assert!(wrong.parse::<AsOf>().is_err(), "{wrong}");
        }
    }
}
