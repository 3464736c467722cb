//! Appending with monthly limits. The database decides under the lock that serializes an organization's
//! appends, so limits are exact on any number of nodes.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::unit::{MonthlyLimit, Unit};

/// SQLSTATE of a batch that exceeds a limit; nothing of it was appended.
pub(super) const REACHED: &str = "HL001";

pub(super) fn limited(unit: &Unit) -> Option<(Uuid, i32, MonthlyLimit)> {
    let first = unit.events.first()?;
    Some((first.organization.uuid(), first.partition.number(), unit.limit?))
}

/// The monthly limits that a batch has to respect, as arrays.
#[derive(Default)]
pub(super) struct Asked {
    /// Number of the unit, when asked per unit.
    pub(super) unit: Vec<i32>,
    /// Units of the organization, when asked per organization.
    pub(super) count: Vec<i64>,
    pub(super) partition: Vec<i32>,
    pub(super) organization: Vec<Uuid>,
    pub(super) allowed: Vec<i64>,
    pub(super) since: Vec<DateTime<Utc>>,
}

impl Asked {
    fn push(&mut self, (organization, partition, limit): (Uuid, i32, MonthlyLimit)) {
        self.partition.push(partition);
        self.organization.push(organization);
        self.allowed.push(limit.allowed.into());
        self.since.push(limit.since);
    }

    pub(super) fn by_unit(units: &[Unit]) -> Self {
        let mut asked = Self::default();
        for (number, unit) in (0..).zip(units) {
            if let Some(limited) = limited(unit) {
                asked.unit.push(number);
                asked.push(limited);
            }
        }
        asked
    }

    /// One row per organization, in the same order on every node to avoid deadlocks. If requests knew
    /// different limits, the lowest applies; the checked append then tells them apart.
    pub(super) fn by_organization(units: &[Unit]) -> Self {
        let mut organizations: BTreeMap<Uuid, (i64, i32, MonthlyLimit)> = BTreeMap::new();
        for (organization, partition, limit) in units.iter().filter_map(limited) {
            let (count, _, lowest) = organizations.entry(organization).or_insert((0, partition, limit));
            *count += 1;
            lowest.allowed = lowest.allowed.min(limit.allowed);
            lowest.since = lowest.since.max(limit.since);
        }
        let mut asked = Self::default();
        for (organization, (count, partition, limit)) in organizations {
            asked.count.push(count);
            asked.push((organization, partition, limit));
        }
        asked
    }
}
