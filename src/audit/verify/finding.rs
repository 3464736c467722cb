//! A problem, and its location.

use std::fmt;

use crate::audit::LedgerId;
use crate::log::LogPosition;

/// Findings that are kept; the rest is only counted.
const KEPT: usize = 100;

/// The kind of a problem. Of several at one place, the first kind is reported, because it explains the
/// others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Swapped,
    Missing,
    Inserted,
    Changed,
    /// Positions, times or sequences are out of order.
    Order,
    /// One of several events differs from the signed ones.
    Differs,
    /// The stored body or headers differ from the received ones.
    Request,
    Signature,
    /// The tables or the file of the ledger were changed, not the log.
    Ledger,
    /// The file differs from the one that was written.
    File,
}

/// A problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub kind: Kind,
    /// Its log position, if it has one.
    pub place: Option<LogPosition>,
    pub ledger: Option<LedgerId>,
    /// In plain words.
    pub text: String,
}

impl Finding {
    #[must_use]
    pub fn at(kind: Kind, place: LogPosition, ledger: LedgerId, text: impl Into<String>) -> Self {
        Self { kind, place: Some(place), ledger: Some(ledger), text: text.into() }
    }

    /// A problem without a position in the log.
    #[must_use]
    pub fn elsewhere(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, place: None, ledger: None, text: text.into() }
    }

    fn key(&self) -> (bool, i32, i64, Kind) {
        let place = self.place.map(|place| (place.partition.number(), place.position));
        let (partition, position) = place.unwrap_or_default();
        (self.place.is_none(), partition, position, self.kind)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place {
            write!(f, "position {}:{}: ", place.partition, place.position)?;
        }
        f.write_str(&self.text)
    }
}

/// All problems, in the order of places.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    found: Vec<Finding>,
    count: u64,
}

impl Findings {
    /// Adds a finding. Beyond the first 100 places, findings are only counted.
    pub fn add(&mut self, finding: Finding) {
        self.count += 1;
        let index = self.found.partition_point(|known| known.key() <= finding.key());
        if index < KEPT {
            self.found.insert(index, finding);
            self.found.truncate(KEPT);
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Number of findings.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The finding at the first place.
    #[must_use]
    pub fn first(&self) -> Option<&Finding> {
        self.found.first()
    }

    /// In order, at most 100.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.found.iter()
    }

    /// Whether the log lost its end, so that appending would fill the gap.
    #[must_use]
    pub fn has_missing(&self) -> bool {
        self.found.iter().any(|finding| finding.kind == Kind::Missing)
    }
}

#[cfg(test)]
mod tests {
    use hookledger_aggregates::{OrganizationId, Partition};

    use super::*;

    #[test]
    fn the_first_place_comes_first_and_at_one_place_what_explains_the_others() {
        let ledger = LedgerId::organization(OrganizationId::PLATFORM);
        let partition = Partition::new(3).unwrap();
        let at = |kind, position| Finding::at(kind, LogPosition { partition, position }, ledger, "it is wrong");
        let mut findings = Findings::default();
        findings.add(Finding::elsewhere(Kind::Ledger, "a file"));
        for finding in [at(Kind::Order, 7), at(Kind::Changed, 9), at(Kind::Swapped, 7)] {
            findings.add(finding);
        }
        let kinds: Vec<_> = findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, [Kind::Swapped, Kind::Order, Kind::Changed, Kind::Ledger]);
        assert_eq!(findings.first().unwrap().to_string(), "position 3:7: it is wrong");
        (0..500).for_each(|position| findings.add(at(Kind::Order, position)));
        assert_eq!((findings.count(), findings.iter().count()), (504, KEPT));
    }
}
