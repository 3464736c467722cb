//! Explains what happened to events whose leaves differ from the ledger's.
//!
//! The ledger has only a hash of each event, so its original content is unknown. But hashes show whether an
//! event would be right in another place, or with a part of another event: then the two were swapped.

use std::collections::BTreeMap;

use hookledger_aggregates::{OrganizationId, Partition};

use super::finding::{Finding, Kind};
use crate::audit::LedgerId;
use crate::audit::tree::Hash;
use crate::log::LogPosition;
use crate::log::stored_event::StoredEvent;

/// Suspects that are searched for the counterpart of a swap.
pub(super) const LOOKED_AT: usize = 64;

/// A position where a tree and the log differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suspect {
    pub position: i64,
    /// The ledger's leaf.
    pub expected: Option<Hash>,
    /// The leaf of the event in the log.
    pub actual: Option<Hash>,
}

/// Differences between the leaves of two lists, both in the order of positions.
#[must_use]
pub fn differences(expected: &[(i64, Hash)], actual: &[(i64, Hash)]) -> Vec<Suspect> {
    let mut by_position: BTreeMap<i64, Suspect> = BTreeMap::new();
    let none = |position| Suspect { position, expected: None, actual: None };
    for (position, hash) in expected {
        by_position.entry(*position).or_insert(none(*position)).expected = Some(*hash);
    }
    for (position, hash) in actual {
        by_position.entry(*position).or_insert(none(*position)).actual = Some(*hash);
    }
    by_position.into_values().filter(|suspect| suspect.expected != suspect.actual).collect()
}

type Swap = fn(&mut StoredEvent, &mut StoredEvent);

/// Parts that two events can have swapped, with their names.
const PARTS: [(&str, Swap); 10] = [
    ("payload", |a, b| std::mem::swap(&mut a.payload, &mut b.payload)),
    ("metadata", |a, b| std::mem::swap(&mut a.metadata, &mut b.metadata)),
    ("position", |a, b| std::mem::swap(&mut a.position, &mut b.position)),
    ("time", |a, b| std::mem::swap(&mut a.recorded_at, &mut b.recorded_at)),
    ("sequence", |a, b| std::mem::swap(&mut a.sequence, &mut b.sequence)),
    ("type", |a, b| std::mem::swap(&mut a.event_type, &mut b.event_type)),
    ("version", |a, b| std::mem::swap(&mut a.event_version, &mut b.event_version)),
    ("aggregate", |a, b| std::mem::swap(&mut a.aggregate_id, &mut b.aggregate_id)),
    ("aggregate type", |a, b| std::mem::swap(&mut a.aggregate_type, &mut b.aggregate_type)),
    ("organization", |a, b| std::mem::swap(&mut a.organization, &mut b.organization)),
];

/// Explains the first of some suspects, which are in order. `events` are the log's events at their positions.
/// `None` without suspects.
#[must_use]
pub fn explain(
    ledger: LedgerId,
    partition: Partition,
    suspects: &[Suspect],
    events: &BTreeMap<i64, StoredEvent>,
) -> Option<Finding> {
    let first = suspects.first()?;
    let at =
        |kind, text: String| Some(Finding::at(kind, LogPosition { partition, position: first.position }, ledger, text));
    let Some(event) = events.get(&first.position) else {
        let missing = suspects.iter().take_while(|suspect| !events.contains_key(&suspect.position)).count();
        return at(
            Kind::Missing,
            match missing {
                1 => "the event is missing".to_owned(),
                _ => format!("{missing} events are missing, this one and those that followed"),
            },
        );
    };
    if let Some((other, parts)) = swapped(first, &suspects[1..suspects.len().min(LOOKED_AT)], event, events) {
        let other = format!("{partition}:{other}");
        return at(
            Kind::Swapped,
            match parts[..] {
                ["position"] => format!("the events here and at {other} were swapped"),
                _ => format!("{} of the events here and at {other} were swapped", parts.join(", ")),
            },
        );
    }
    if let Some(next) = suspects.get(1).filter(|next| would_be_right(event, next)) {
        let told =
            format!("an event is missing here, and later ones were moved up: the one here was at {}", next.position);
        return at(Kind::Missing, told);
    }
    let moved_down =
        suspects.get(1).and_then(|next| events.get(&next.position)).filter(|next| would_be_right(next, first));
    if let Some(next) = moved_down {
        let told = format!(
            "an event was inserted here, and later ones were moved down: the one from here is at {}",
            next.position
        );
        return at(Kind::Inserted, told);
    }
    if LedgerId::of(OrganizationId::new(event.organization), partition) != ledger {
        return at(Kind::Changed, format!("the event was moved to the organization {}", event.organization));
    }
    match first.expected {
        None => at(Kind::Inserted, "the event was inserted: the ledger has none here".to_owned()),
        Some(_) => at(Kind::Changed, "the event was changed: it is not the one that the ledger has here".to_owned()),
    }
}

/// Whether an event would have the ledger's leaf if it were at this place.
fn would_be_right(event: &StoredEvent, place: &Suspect) -> bool {
    let moved = StoredEvent { position: place.position, ..event.clone() };
    place.expected == Some(moved.leaf_hash())
}

/// The event with which the first one was swapped, and the fewest parts that explain it.
fn swapped(
    first: &Suspect,
    others: &[Suspect],
    event: &StoredEvent,
    events: &BTreeMap<i64, StoredEvent>,
) -> Option<(i64, Vec<&'static str>)> {
    let mut choices: Vec<u32> = (1..1 << PARTS.len()).collect();
    choices.sort_by_key(|choice| choice.count_ones());
    for other in others {
        let Some(other_event) = events.get(&other.position) else { continue };
        for choice in &choices {
            let (mut a, mut b) = (event.clone(), other_event.clone());
            let chosen = PARTS.iter().enumerate().filter(|(index, _)| choice >> index & 1 == 1).map(|(_, part)| part);
            let names: Vec<_> = chosen
                .map(|(name, swap)| {
                    swap(&mut a, &mut b);
                    *name
                })
                .collect();
            let right = |event: &StoredEvent| {
                let place = [first, other].into_iter().find(|place| place.position == event.position);
                place.is_some_and(|place| place.expected == Some(event.leaf_hash()))
            };
            if right(&a) && right(&b) {
                return Some((other.position, names));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> BTreeMap<i64, StoredEvent> {
        let organization = OrganizationId::from_slug("acme").uuid();
        let event = |position: i64| StoredEvent {
            organization,
            partition: OrganizationId::from_slug("acme").partition().number(),
            position,
            sequence: position,
            recorded_at: 1_000 + position,
            event_type: "webhook.received".into(),
            payload: format!("{{\"n\":{position}}}"),
            metadata: format!("{{\"m\":\"{position}\"}}"),
            ..StoredEvent::default()
        };
        (1..=9).map(|position| (position, event(position))).collect()
    }

    fn leaves(log: &BTreeMap<i64, StoredEvent>) -> Vec<(i64, Hash)> {
        log.iter().map(|(position, event)| (*position, event.leaf_hash())).collect()
    }

    /// The explanation for a log after a change.
    fn told(change: impl FnOnce(&mut BTreeMap<i64, StoredEvent>)) -> String {
        let mut changed = log();
        change(&mut changed);
        let (ledger, partition) =
            (LedgerId::organization(OrganizationId::from_slug("acme")), OrganizationId::from_slug("acme").partition());
        let suspects = differences(&leaves(&log()), &leaves(&changed));
        let text = explain(ledger, partition, &suspects, &changed).unwrap().to_string();
        text.replace(&format!("{partition}:"), "p:")
    }

    fn two(log: &mut BTreeMap<i64, StoredEvent>, swap: Swap) {
        let (mut a, mut b) = (log.remove(&3).unwrap(), log.remove(&7).unwrap());
        swap(&mut a, &mut b);
        log.insert(a.position, a);
        log.insert(b.position, b);
    }

    #[test]
    fn what_was_done_is_told_at_its_place() {
        assert_eq!(
            told(|log| log.get_mut(&4).unwrap().payload.push(' ')),
            "position p:4: the event was changed: it is not the one that the ledger has here"
        );
        assert_eq!(told(|log| drop(log.remove(&5))), "position p:5: the event is missing");
        assert_eq!(
            told(|log| log.retain(|position, _| *position < 7)),
            "position p:7: 3 events are missing, this one and those that followed"
        );
        assert_eq!(
            told(|log| two(log, |a, b| std::mem::swap(&mut a.position, &mut b.position))),
            "position p:3: the events here and at p:7 were swapped"
        );
        assert_eq!(
            told(|log| two(log, |a, b| std::mem::swap(&mut a.payload, &mut b.payload))),
            "position p:3: payload of the events here and at p:7 were swapped"
        );
        assert_eq!(
            told(|log| two(log, |a, b| {
                std::mem::swap(&mut a.payload, &mut b.payload);
                std::mem::swap(&mut a.metadata, &mut b.metadata);
            })),
            "position p:3: payload, metadata of the events here and at p:7 were swapped"
        );
        assert_eq!(
            told(|log| {
                log.remove(&4);
                *log = log
                    .values()
                    .cloned()
                    .zip(1..)
                    .map(|(event, position)| (position, StoredEvent { position, ..event }))
                    .collect();
            }),
            "position p:4: an event is missing here, and later ones were moved up: the one here was at 5"
        );
        assert_eq!(
            told(|log| log.get_mut(&4).unwrap().organization = OrganizationId::PLATFORM.uuid()),
            format!("position p:4: the event was moved to the organization {}", OrganizationId::PLATFORM)
        );
    }

    #[test]
    fn what_agrees_is_not_suspect() {
        assert!(differences(&leaves(&log()), &leaves(&log())).is_empty());
    }
}
