//! What is wrong, and where.

use std::fmt;

use crate::audit::LedgerId;
use crate::log::LogPosition;

/// Findings that are kept; of the rest only the number.
const KEPT: usize = 100;

/// What kind of thing is wrong. Of several things at one place the first kind is told: it explains the
/// others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Swapped,
    Missing,
    Inserted,
    Changed,
    /// Positions, times or sequences are not in order.
    Order,
    /// Something among several events is not what was signed.
    Differs,
    /// The kept body or headers are not those that were received.
    Request,
    Signature,
    /// The tables or the file of the ledger were changed, not the log.
    Ledger,
    /// The file is not as it was written.
    File,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub kind: Kind,
    /// Where in the log, if it is at a place there.
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

    /// Of something that is at no place in the log.
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

/// Everything that is wrong, the first place first.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    found: Vec<Finding>,
    count: u64,
}

impl Findings {
    /// Adds a finding. Beyond the hundred first places only the number is kept.
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

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first place that is wrong.
    #[must_use]
    pub fn first(&self) -> Option<&Finding> {
        self.found.first()
    }

    /// In order, a hundred at most.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.found.iter()
    }

    /// Whether the log is shorter than it was, so that appending would fill the hole.
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
