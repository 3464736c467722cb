//! Appending where organizations have a monthly limit. It is decided by the database under the lock
//! that makes an organization's appends take turns, so it is exact on any number of nodes.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::unit::{MonthlyLimit, Unit};

/// SQLSTATE of a batch that not all of fits into the limits; nothing of it was appended.
pub(super) const REACHED: &str = "HL001";

pub(super) fn limited(unit: &Unit) -> Option<(Uuid, i32, MonthlyLimit)> {
    let first = unit.events.first()?;
    Some((first.organization.uuid(), first.partition.number(), unit.limit?))
}

/// What a batch asks of the limits, as arrays.
#[derive(Default)]
pub(super) struct Asked {
    /// Which unit, where each is asked for.
    pub(super) unit: Vec<i32>,
    /// How many units of an organization, where organizations are.
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

    /// One row an organization, in one order for everybody. Where requests knew different limits,
    /// the lowest is asked for; the careful way then tells them apart.
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
