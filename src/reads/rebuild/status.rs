//! Progress of every follower of the log.

use hookledger_aggregates::Partition;
use hookledger_projections::Interest;
use sqlx::FromRow;

use super::RebuildError;
use crate::log::{LogPosition, Scope, count_after};
use crate::platform::store::Store;

/// Followers other than projections that receive only some events.
const NARROW: [(&str, Scope); 3] =
    [("processing", Scope::Pending), ("retention", Scope::Administrative), ("sessions", Scope::Administrative)];

/// The events that a follower of that name receives.
#[must_use]
pub fn scope_of(name: &str) -> Scope {
    let projections = hookledger_projections::all();
    match projections.iter().find(|projection| projection.name() == name).map(|projection| projection.interest()) {
        Some(Interest::Administrative) => Scope::Administrative,
        Some(Interest::All) => Scope::All,
        None => NARROW.iter().find(|(narrow, _)| *narrow == name).map_or(Scope::All, |(_, scope)| *scope),
    }
}

/// A follower of the log.
#[derive(Clone, Debug)]
pub struct ProjectionStatus {
    pub name: String,
    /// Number of the live rebuild; `None` for followers other than projections.
    pub version: Option<i32>,
    /// Whether there is a rebuilt copy that is not in use.
    pub has_copy: bool,
    /// Whether the tables that the last rebuild replaced are kept.
    pub has_previous: bool,
    pub partitions: Vec<PartitionStatus>,
}

/// A follower's progress in one partition.
#[derive(Clone, Debug, FromRow)]
pub struct PartitionStatus {
    #[sqlx(default)]
    name: String,
    pub partition: i32,
    pub position: i64,
    /// The log's last position.
    pub head: i64,
    /// Events up to the head that concern this follower and are not handled yet. Events that it skips, as
    /// followers of settings skip webhooks, do not count.
    pub lag: i64,
    pub stopped_by: Option<String>,
}

/// The status of every follower, by name.
pub async fn status(store: &Store) -> Result<Vec<ProjectionStatus>, RebuildError> {
    let mut owner = store.owner().await?;
    sqlx::query("set role hookledger_worker").execute(&mut owner).await?;
    let schemas: Vec<String> =
        sqlx::query_scalar("select nspname::text from pg_namespace").fetch_all(&mut owner).await?;
    let versions: Vec<(String, i32)> =
        sqlx::query_as("select name, version from projection_versions").fetch_all(&mut owner).await?;
    let projections = hookledger_projections::all();
    let rows: Vec<PartitionStatus> = sqlx::query_as(
        "select c.name, c.partition, c.position, h.position as head, h.position - c.position as lag, c.stopped_by
         from follower_checkpoints c join log_heads h using (partition) order by c.name, c.partition",
    )
    .fetch_all(&mut owner)
    .await?;
    let mut all: Vec<ProjectionStatus> = Vec::new();
    for row in rows {
        if all.last().is_none_or(|last| last.name != row.name) {
            let is_projection = projections.iter().any(|projection| projection.name() == row.name);
            let version = versions.iter().find(|(name, _)| *name == row.name).map_or(1, |(_, version)| *version);
            all.push(ProjectionStatus {
                version: is_projection.then_some(version),
                has_copy: schemas.contains(&format!("rebuild_{}", row.name)),
                has_previous: schemas.contains(&format!("previous_{}", row.name)),
                name: row.name.clone(),
                partitions: Vec::new(),
            });
        }
        if let Some(last) = all.last_mut() {
            last.partitions.push(row);
        }
    }
    for follower in &mut all {
        let scope = scope_of(&follower.name);
        if scope == Scope::All {
            continue;
        }
        let cursors = follower
            .partitions
            .iter()
            .filter_map(|row| Some(LogPosition { partition: Partition::new(row.partition)?, position: row.position }));
        let counts = count_after(&mut owner, &cursors.collect::<Vec<_>>(), scope).await?;
        for row in &mut follower.partitions {
            row.lag = counts.iter().find(|(partition, _)| *partition == row.partition).map_or(0, |(_, count)| *count);
        }
    }
    Ok(all)
}
