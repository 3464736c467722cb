//! Statistics of a log: by kind, by month, by actor, and what was checked.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::log::stored_event::StoredEvent;

/// Distinct kinds, months and actors that are counted; a hostile file may contain any number.
const APART: usize = 2_000;
const OTHERS: &str = "(others)";

/// Numbers of what was seen and checked.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub events: u64,
    pub by_kind: BTreeMap<String, u64>,
    /// `2026-11`.
    pub by_month: BTreeMap<String, u64>,
    /// `system`, `sender` or `user:id`.
    pub by_actor: BTreeMap<String, u64>,
    /// Microseconds since 1970.
    pub first: Option<i64>,
    pub last: Option<i64>,
    pub requests: Requests,
    pub signatures_verified: u64,
    /// Signatures that could not be verified again, and why.
    pub signatures_skipped: BTreeMap<&'static str, u64>,
    month: Option<(i64, i64, String)>,
}

/// Statistics of stored requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Requests {
    /// Bodies with the digest of their event.
    pub bodies: u64,
    pub bytes: u64,
    /// Bodies that are no longer stored, or never were. Their events have size and digest.
    pub gone: u64,
    /// Headers with the digest of their event.
    pub headers: u64,
    /// Headers of events from before there was a digest.
    pub headers_unattested: u64,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    actor: Option<Cow<'a, str>>,
}

impl Tally {
    /// Counts an event.
    pub fn count<T: AsRef<str>>(&mut self, event: &StoredEvent<T>) {
        self.events += 1;
        self.first = self.first.or(Some(event.recorded_at));
        self.first = self.first.min(Some(event.recorded_at));
        self.last = self.last.max(Some(event.recorded_at));
        add(&mut self.by_kind, event.event_type.as_ref());
        let metadata = serde_json::from_str::<Metadata<'_>>(event.metadata.as_ref());
        let actor = metadata.ok().and_then(|metadata| metadata.actor);
        add(&mut self.by_actor, actor.as_deref().unwrap_or("system"));
        // The log is in order, so the month nearly always equals that of the event before.
        match &self.month {
            Some((from, to, month)) if (*from..*to).contains(&event.recorded_at) => add(&mut self.by_month, month),
            _ => self.in_new_month(event.recorded_at),
        }
    }

    fn in_new_month(&mut self, at: i64) {
        let Some((from, to, month)) = month_of(at) else { return add(&mut self.by_month, "(no time)") };
        add(&mut self.by_month, &month);
        self.month = Some((from, to, month));
    }

    /// Counts a signature that could not be verified again.
    pub fn skip_signature(&mut self, why: &'static str) {
        *self.signatures_skipped.entry(why).or_default() += 1;
    }
}

fn add(counts: &mut BTreeMap<String, u64>, name: &str) {
    if let Some(count) = counts.get_mut(name) {
        *count += 1;
        return;
    }
    let name = if counts.len() < APART { name.chars().take(200).collect() } else { OTHERS.to_owned() };
    *counts.entry(name).or_default() += 1;
}

fn month_of(at: i64) -> Option<(i64, i64, String)> {
    let time = DateTime::<Utc>::from_timestamp_micros(at)?;
    let first = time.date_naive().format("%Y-%m-01").to_string().parse::<chrono::NaiveDate>().ok()?;
    let next = first.checked_add_months(chrono::Months::new(1))?;
    let micros = |date: chrono::NaiveDate| date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros();
    Some((micros(first), micros(next), first.format("%Y-%m").to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_by_kind_month_and_actor() {
        let mut tally = Tally::default();
        let march = 1_772_323_200_000_000; // 2026-03-01T00:00:00Z
        for (at, actor) in [(march - 1, "sender"), (march, "user:7"), (march + 1, "sender"), (i64::MAX, "sender")] {
            let metadata = format!("{{\"actor\":\"{actor}\"}}");
            tally.count(&StoredEvent { recorded_at: at, metadata, event_type: "a.b".into(), ..StoredEvent::default() });
        }
        tally.count(&StoredEvent { metadata: "not json".to_owned(), ..StoredEvent::default() });
        let months: Vec<_> = tally.by_month.iter().map(|(month, count)| (month.as_str(), *count)).collect();
        assert_eq!(months, [("(no time)", 1), ("1970-01", 1), ("2026-02", 1), ("2026-03", 2)]);
        assert_eq!((tally.by_actor["sender"], tally.by_actor["user:7"], tally.by_actor["system"]), (3, 1, 1));
        assert_eq!((tally.by_kind["a.b"], tally.events), (4, 5));
    }

    #[test]
    fn any_number_of_names_takes_bounded_memory() {
        let mut counts = BTreeMap::new();
        (0..10_000).for_each(|n| add(&mut counts, &n.to_string()));
        assert_eq!(counts.len(), APART + 1);
        assert_eq!(counts.values().sum::<u64>(), 10_000);
    }
}
