//! Checks of successive events: their order, and the stored requests beside them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use hookledger_aggregates::{OrganizationId, Partition, ProviderId, ProviderName};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::finding::{Finding, Findings, Kind};
use super::tally::Tally;
use crate::audit::LedgerId;
use crate::log::LogPosition;
use crate::log::stored_event::StoredEvent;

/// A stored request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The webhook that it claims to belong to; in a file, its place shows that.
    pub webhook: Option<Uuid>,
    pub headers: &'a [u8],
    pub body: &'a [u8],
}

/// An event's statement about its request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Attested<'a> {
    #[serde(borrow)]
    pub(crate) body_sha256: Cow<'a, str>,
    pub(crate) body_size: u64,
    #[serde(borrow, default)]
    pub(crate) headers_sha256: Option<Cow<'a, str>>,
    pub(crate) provider: ProviderName,
    pub(crate) provider_id: ProviderId,
}

/// Digests of a request, computed incrementally.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Digests {
    pub(crate) body_sha256: String,
    pub(crate) body_size: u64,
    pub(crate) headers_sha256: String,
}

impl Digests {
    pub(crate) fn of(request: &Request<'_>) -> Self {
        Self {
            body_sha256: hex::encode(Sha256::digest(request.body)),
            body_size: request.body.len() as u64,
            headers_sha256: hex::encode(Sha256::digest(request.headers)),
        }
    }
}

/// Whether an event of this type has a request.
#[must_use]
pub(crate) fn has_request(event_type: &str) -> bool {
    matches!(
        event_type,
        "webhook.received" | "webhook.received_unverified" | "webhook.rejected" | "webhook.duplicate_body_kept"
    )
}

/// Checks successive events.
#[derive(Debug)]
pub struct EventCheck {
    partition: Partition,
    /// Whether every position must exist; otherwise positions only increase.
    contiguous: bool,
    last: i64,
    recorded_at: i64,
    kinds: Vec<String>,
    /// Last sequence of each stream. About 40 bytes per stream, so it grows with the log.
    sequences: HashMap<(u16, Uuid), i64>,
    /// By organization, its missing requests: 8 bytes each, so this grows with the log too.
    removals: BTreeMap<Uuid, Removals>,
}

/// An organization's missing requests, and its events about removals.
#[derive(Debug, Default)]
struct Removals {
    /// Positions of events whose request should be stored according to the event.
    gone: Vec<i64>,
    /// Requests up to this position were removed because of their age.
    removed_to: i64,
    erased: BTreeSet<i64>,
}

/// A removal of requests, according to an event of retention.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Removal {
    #[serde(default)]
    to_position: Option<i64>,
    #[serde(default)]
    position: Option<i64>,
}

impl EventCheck {
    /// For a whole partition.
    #[must_use]
    pub fn of_partition(partition: Partition) -> Self {
        Self { contiguous: true, ..Self::of_ledger(partition) }
    }

    /// For one organization's events in its partition.
    #[must_use]
    pub fn of_ledger(partition: Partition) -> Self {
        Self {
            partition,
            contiguous: false,
            last: 0,
            recorded_at: i64::MIN,
            kinds: Vec::new(),
            sequences: HashMap::new(),
            removals: BTreeMap::new(),
        }
    }

    /// Position of the last event.
    #[must_use]
    pub fn last(&self) -> i64 {
        self.last
    }

    /// Checks an event's position in the partition.
    pub fn place<T: AsRef<str>>(&mut self, event: &StoredEvent<T>, findings: &mut Findings) {
        let (ledger, place) = self.whereabouts(event);
        let expected = self.last.saturating_add(1);
        let at = |position| LogPosition { partition: self.partition, position };
        if event.position < expected {
            let text = format!("positions go back, from {} to this one", self.last);
            findings.add(Finding::at(Kind::Order, place, ledger, text));
        } else if self.contiguous && event.position > expected {
            let text = match event.position.saturating_sub(expected) {
                1 => "the event is missing: the log has none at this position".to_owned(),
                count => format!(
                    "{count} events are missing: the log has none at this position and up to {}",
                    event.position - 1
                ),
            };
            findings.add(Finding { ledger: None, ..Finding::at(Kind::Missing, at(expected), ledger, text) });
        }
        self.last = event.position;
        if event.recorded_at < self.recorded_at {
            let text = "the event is recorded earlier than the one before it".to_owned();
            findings.add(Finding::at(Kind::Order, place, ledger, text));
        }
        self.recorded_at = event.recorded_at;
    }

    /// Checks an event's sequence in its stream.
    pub fn stream<T: AsRef<str>>(&mut self, event: &StoredEvent<T>, findings: &mut Findings) {
        let (ledger, place) = self.whereabouts(event);
        let (kind, id) = (event.aggregate_type.as_ref(), event.aggregate_id.as_ref());
        let Ok(id) = id.parse::<Uuid>() else {
            return findings.add(Finding::at(Kind::Order, place, ledger, "the ID of the event's stream is invalid"));
        };
        let known = self.kinds.iter().position(|known| known == kind);
        let kind = known.unwrap_or_else(|| {
            // There are fewer than ten; a hostile file gets no memory for more.
            if self.kinds.len() < 1_000 {
                self.kinds.push(kind.chars().take(200).collect());
            }
            self.kinds.len() - 1
        });
        let last = self.sequences.entry((u16::try_from(kind).unwrap_or(u16::MAX), id)).or_default();
        let next = last.saturating_add(1);
        if event.sequence != next {
            let text = format!(
                "the event has sequence {} in its stream {} {id}, where {} should come next",
                event.sequence,
                event.aggregate_type.as_ref(),
                next
            );
            findings.add(Finding::at(Kind::Order, place, ledger, text));
        }
        *last = event.sequence;
    }

    /// Compares the stored request with its event, and collects an event's statements about removed requests.
    pub(crate) fn request<T: AsRef<str>>(
        &mut self,
        event: &StoredEvent<T>,
        kept: Option<&Digests>,
        tally: &mut Tally,
        findings: &mut Findings,
    ) {
        if event.aggregate_type.as_ref() == "retention" {
            return self.removal(event);
        }
        if !has_request(event.event_type.as_ref()) {
            return;
        }
        let (ledger, place) = self.whereabouts(event);
        let mut wrong = |text: &str| findings.add(Finding::at(Kind::Request, place, ledger, text));
        let Ok(attested) = serde_json::from_str::<Attested<'_>>(event.payload.as_ref()) else {
            return wrong("the event has no digest to compare the request with");
        };
        let Some(kept) = kept else {
            tally.requests.gone += 1;
            // A large rejected request was never stored, and nothing attests its headers.
            if event.event_type.as_ref() != "webhook.rejected" || attested.headers_sha256.is_some() {
                self.removals.entry(event.organization).or_default().gone.push(event.position);
            }
            return;
        };
        if attested.body_sha256 == kept.body_sha256 && attested.body_size == kept.body_size {
            tally.requests.bodies += 1;
            tally.requests.bytes += kept.body_size;
        } else {
            wrong("the stored body was replaced: it does not have the SHA-256 in the event");
        }
        match &attested.headers_sha256 {
            Some(digest) if *digest == kept.headers_sha256 => tally.requests.headers += 1,
            Some(_) => {
                wrong("the stored headers were replaced: they do not have the SHA-256 in the event");
            }
            None => tally.requests.headers_unattested += 1,
        }
    }

    /// Collects an event's statements about removed requests, which come earlier in the partition.
    fn removal<T: AsRef<str>>(&mut self, event: &StoredEvent<T>) {
        let Ok(said) = serde_json::from_str::<Removal>(event.payload.as_ref()) else { return };
        let removals = self.removals.entry(event.organization).or_default();
        match event.event_type.as_ref() {
            "retention.bodies_removed" => {
                removals.removed_to = removals.removed_to.max(said.to_position.unwrap_or_default());
            }
            "retention.body_erased" => removals.erased.extend(said.position),
            _ => {}
        }
    }

    /// After all events: each missing request must have been removed by an event.
    pub(crate) fn removed(&self, findings: &mut Findings) {
        for (organization, removals) in &self.removals {
            let ledger = LedgerId::of(OrganizationId::new(*organization), self.partition);
            let documented = |at: &i64| *at <= removals.removed_to || removals.erased.contains(at);
            for position in removals.gone.iter().copied().filter(|at| !documented(at)) {
                let place = LogPosition { partition: self.partition, position };
                let text = "the request was removed, and no event documents the removal";
                findings.add(Finding::at(Kind::Request, place, ledger, text));
            }
        }
    }

    /// The tree of an event, and its log position.
    pub(crate) fn whereabouts<T>(&self, event: &StoredEvent<T>) -> (LedgerId, LogPosition) {
        let place = LogPosition { partition: self.partition, position: event.position };
        (LedgerId::of(OrganizationId::new(event.organization), self.partition), place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> Partition {
        OrganizationId::from_slug("acme").partition()
    }

    fn event(position: i64, stream: u128, sequence: i64) -> StoredEvent {
        StoredEvent {
            organization: OrganizationId::from_slug("acme").uuid(),
            partition: partition().number(),
            position,
            sequence,
            recorded_at: 1_000 + position,
            aggregate_type: "webhook".into(),
            aggregate_id: Uuid::from_u128(stream).to_string(),
            event_type: "webhook.received".into(),
            ..StoredEvent::default()
        }
    }

    fn found(events: &[StoredEvent]) -> Vec<(Kind, i64)> {
        let (mut check, mut findings) = (EventCheck::of_partition(partition()), Findings::default());
        for event in events {
            check.place(event, &mut findings);
            check.stream(event, &mut findings);
        }
        findings.iter().map(|finding| (finding.kind, finding.place.unwrap().position)).collect()
    }

    #[test]
    fn order_is_told_where_it_is_broken() {
        assert!(found(&[event(1, 7, 1), event(2, 8, 1), event(3, 7, 2)]).is_empty());
        assert_eq!(found(&[event(1, 7, 1), event(4, 8, 1)]), [(Kind::Missing, 2)]);
        assert_eq!(found(&[event(1, 7, 1), event(1, 8, 1)]), [(Kind::Order, 1)]);
        assert_eq!(found(&[event(1, 7, 1), event(2, 7, 3), event(3, 7, 4)]), [(Kind::Order, 2)]);
        assert_eq!(found(&[event(1, 7, 1), StoredEvent { recorded_at: 5, ..event(2, 8, 1) }]), [(Kind::Order, 2)]);
    }

    #[test]
    fn a_request_is_that_of_its_event() {
        let request = Request { webhook: None, headers: b"a:1\n", body: b"{}" };
        let digests = Digests::of(&request);
        let payload = |headers: &str| {
            format!(
                "{{\"providerId\":\"{}\",\"provider\":\"github\",\"bodySha256\":\"{}\",\"bodySize\":2{headers}}}",
                Uuid::nil(),
                digests.body_sha256
            )
        };
        let found = |payload: String, kept: Option<&Digests>| {
            let (mut check, mut tally, mut findings) =
                (EventCheck::of_ledger(partition()), Tally::default(), Findings::default());
            check.request(&StoredEvent { payload, ..event(1, 7, 1) }, kept, &mut tally, &mut findings);
            check.removed(&mut findings);
            (tally.requests.bodies, tally.requests.headers, findings.count())
        };
        let headers = format!(",\"headersSha256\":\"{}\"", digests.headers_sha256);
        assert_eq!(found(payload(&headers), Some(&digests)), (1, 1, 0));
        assert_eq!(found(payload(""), Some(&digests)), (1, 0, 0));
        assert_eq!(found(payload(&headers), None), (0, 0, 1));
        assert_eq!(found("{}".into(), Some(&digests)), (0, 0, 1));
        let other = Digests::of(&Request { body: b"[]", ..request });
        assert_eq!(found(payload(&headers), Some(&other)), (0, 1, 1));
        let other = Digests::of(&Request { headers: b"a:2\n", ..request });
        assert_eq!(found(payload(&headers), Some(&other)), (1, 0, 1));
    }
    #[test]
    fn what_is_not_kept_was_removed_by_an_event() {
        let payload = |headers: &str| {
            let id = Uuid::nil();
            format!("{{\"providerId\":\"{id}\",\"provider\":\"github\",\"bodySha256\":\"00\",\"bodySize\":2{headers}}}")
        };
        let attested = payload(",\"headersSha256\":\"00\"");
        let received = |position| StoredEvent { payload: attested.clone(), ..event(position, 7, 1) };
        let says = |event_type: &str, payload: &str| StoredEvent {
            aggregate_type: "retention".into(),
            event_type: event_type.into(),
            payload: payload.into(),
            ..event(9, 8, 1)
        };
        let found = |events: &[StoredEvent]| {
            let (mut check, mut findings) = (EventCheck::of_ledger(partition()), Findings::default());
            for event in events {
                check.request(event, None, &mut Tally::default(), &mut findings);
            }
            check.removed(&mut findings);
            findings.iter().map(|finding| finding.place.unwrap().position).collect::<Vec<_>>()
        };
        let all = [received(1), received(2), received(4)];
        assert_eq!(found(&all), [1, 2, 4]);
        let old = says("retention.bodies_removed", "{\"toPosition\":2}");
        let erased = says("retention.body_erased", "{\"position\":4}");
        assert_eq!(found(&[&all[..], std::slice::from_ref(&old)].concat()), [4]);
        assert_eq!(found(&[&all[..], &[old, erased]].concat()), [0; 0]);
        let refused =
            |payload: String| StoredEvent { event_type: "webhook.rejected".into(), payload, ..event(1, 7, 1) };
        assert_eq!(found(&[refused(attested.clone())]), [1]);
        assert_eq!(found(&[refused(payload(""))]), [0; 0]);
    }
}
