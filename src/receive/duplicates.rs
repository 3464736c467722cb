//! Duplicates: a memory of webhooks, so that a flood of one webhook needs no database query; and counts of
//! duplicates beyond a rate, instead of one event each.
//!
//! The answer to a duplicate promises that the first receipt is durable, and it was durable before it was
//! remembered here. So a count may follow the answer: a crash can lose a count, but never a webhook.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use governor::{DefaultKeyedRateLimiter, RateLimiter};
use hookledger_aggregates::webhook::WebhookEvent;
use hookledger_aggregates::{Metadata, OrganizationId, Phase, ProviderId, TransmissionId, WebhookId};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::log::{self, AppendError, Epoch, Heads, Log, NewEvent, Sequence, Unit};
use crate::platform::rate::Rate;

/// Duplicates per endpoint that are logged at once, and then per second.
const LOGGED: Rate = Rate::new(120, Duration::from_millis(50));
/// Duplicates per webhook that are logged before the others are counted.
const LOGGED_EACH: u32 = 8;
/// Minimum number of webhooks remembered; the maximum is twice that.
const REMEMBERED: usize = 8_192;
/// Bodies and transmissions remembered per webhook.
const KNOWN_EACH: usize = 32;
/// Interval after which one of the callers reads a webhook's status again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Webhooks whose duplicates are counted at the same time; beyond it they are logged.
const COUNTED: usize = 8_192;
/// Delay before a count is logged. It grows while more duplicates arrive, so that no stream becomes long.
const FIRST_REPORT: Duration = Duration::from_secs(2);
const LAST_REPORT: Duration = Duration::from_secs(300);
/// Interval of looks for counts that are due.
const TICK: Duration = Duration::from_millis(500);

/// Memory of a webhook with duplicates.
#[derive(Clone, Debug)]
struct Remembered {
    webhook: WebhookId,
    phase: Phase,
    body_sha256: String,
    /// Digests of other stored bodies.
    others: Vec<String>,
    /// Whether the maximum number of other bodies is stored.
    is_full: bool,
    /// Transmissions that are bound to a body.
    transmissions: Vec<(TransmissionId, String)>,
    logged: u32,
    looked_at: Instant,
}

impl Remembered {
    fn knows(&self, body_sha256: &str, transmission: Option<TransmissionId>) -> bool {
        let knows_body =
            self.is_full || self.body_sha256 == body_sha256 || self.others.iter().any(|other| other == body_sha256);
        let bound = |id| self.transmissions.iter().any(|(known, sha256)| *known == id && sha256 == body_sha256);
        knows_body && transmission.is_none_or(bound)
    }
}

/// The parts of a request that identify a duplicate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivered<'a> {
    pub(super) provider: ProviderId,
    /// The webhook ID that follows from its event.
    pub(super) event: WebhookId,
    pub(super) body_sha256: &'a str,
    pub(super) transmission: Option<TransmissionId>,
}

/// Whether a request is a duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Yes, and the answer needs no lookup.
    Duplicate(Original),
    /// Most likely, but the log has to be read.
    Again,
    Unknown,
}

/// The webhook that a request is a duplicate of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Original {
    pub(super) webhook: WebhookId,
    pub(super) phase: Phase,
    pub(super) body_differs: bool,
}

/// State of a webhook in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read<'a> {
    /// Digest of its own body.
    pub(super) body_sha256: &'a str,
    /// At least this many of its duplicates are logged individually.
    pub(super) logged: u32,
    /// Whether the maximum number of duplicates' bodies is stored.
    pub(super) is_full: bool,
    /// Epoch of the log in which this was read.
    pub(super) epoch: Epoch,
}

#[derive(Debug)]
struct Count {
    all: u64,
    differing: u64,
    since: DateTime<Utc>,
    due: Instant,
    /// Time between reports.
    every: Duration,
}

#[derive(Debug, Default)]
struct Known {
    /// Two generations, the recently used first. When it is full, it replaces the older one.
    recent: HashMap<WebhookId, Remembered>,
    before: HashMap<WebhookId, Remembered>,
    counts: HashMap<(OrganizationId, WebhookId), Count>,
}

impl Known {
    fn of(&mut self, event: WebhookId) -> Option<&mut Remembered> {
        if let Some(found) = self.before.remove(&event) {
            self.put(event, found);
        }
        self.recent.get_mut(&event)
    }

    fn put(&mut self, event: WebhookId, remembered: Remembered) {
        if self.recent.len() >= REMEMBERED {
            self.before = std::mem::take(&mut self.recent);
        }
        self.recent.insert(event, remembered);
    }
}

/// Shared between requests and the [`DuplicateCounter`].
#[derive(Debug)]
pub struct Duplicates {
    limiter: DefaultKeyedRateLimiter<ProviderId>,
    known: Mutex<log::Remembered<Known>>,
    /// Notified when there is no room for more counts.
    full: Notify,
}

impl Default for Duplicates {
    fn default() -> Self {
        Self { limiter: RateLimiter::keyed(LOGGED.quota()), known: Mutex::default(), full: Notify::new() }
    }
}

impl Duplicates {
    /// Duplicates of webhooks in that log.
    #[must_use]
    pub fn of(heads: &Heads) -> Self {
        Self { known: Mutex::new(heads.remember()), ..Self::default() }
    }

    fn known(&self) -> MutexGuard<'_, log::Remembered<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks a request up. From time to time one caller is told to read the webhook's status again.
    pub(super) fn look(&self, delivered: &Delivered<'_>) -> Look {
        let mut known = self.known();
        let known = known.get();
        let Some(remembered) = known.of(delivered.event) else { return Look::Unknown };
        if !remembered.knows(delivered.body_sha256, delivered.transmission) {
            return Look::Again;
        }
        if remembered.looked_at.elapsed() > LOOK_AGAIN {
            remembered.looked_at = Instant::now();
            return Look::Again;
        }
        let body_differs = remembered.body_sha256 != delivered.body_sha256;
        Look::Duplicate(Original { webhook: remembered.webhook, phase: remembered.phase, body_differs })
    }

    /// Remembers what was just read: the log has the webhook, with this body stored or the maximum number of
    /// bodies.
    pub(super) fn remember(&self, delivered: &Delivered<'_>, original: Original, read: Read<'_>) {
        let Read { body_sha256, logged, is_full, epoch } = read;
        let mut known = self.known();
        let Some(known) = known.get_in(epoch) else { return };
        if known.of(delivered.event).is_none() {
            let new = Remembered {
                webhook: original.webhook,
                phase: original.phase,
                body_sha256: body_sha256.to_owned(),
                others: Vec::new(),
                is_full,
                transmissions: Vec::new(),
                logged,
                looked_at: Instant::now(),
            };
            known.put(delivered.event, new);
        }
        let Some(remembered) = known.of(delivered.event) else { return };
        (remembered.phase, remembered.looked_at) = (original.phase, Instant::now());
        remembered.is_full |= is_full;
        if !is_full && original.body_differs && !remembered.others.iter().any(|other| other == delivered.body_sha256) {
            keep_last(&mut remembered.others, delivered.body_sha256.to_owned());
        }
        if let Some(transmission) = delivered.transmission
            && !remembered.transmissions.iter().any(|(id, _)| *id == transmission)
        {
            keep_last(&mut remembered.transmissions, (transmission, delivered.body_sha256.to_owned()));
        }
    }

    /// Forgets a webhook that the log has lost.
    pub(super) fn forget(&self, event: WebhookId) {
        let mut known = self.known();
        let known = known.get();
        known.recent.remove(&event);
        known.before.remove(&event);
    }

    /// Whether to log one more duplicate individually; otherwise it is counted.
    pub(super) fn is_logged(&self, delivered: &Delivered<'_>) -> bool {
        let mut known = self.known();
        let known = known.get();
        let Some(remembered) = known.of(delivered.event) else { return true };
        if remembered.logged >= LOGGED_EACH || self.limiter.check_key(&delivered.provider).is_err() {
            return false;
        }
        remembered.logged += 1;
        true
    }

    /// Counts a duplicate that is not logged individually. Returns false if there is no room, or the epoch
    /// has ended.
    pub(super) fn count(&self, organization: OrganizationId, original: Original, epoch: Epoch) -> bool {
        let key = (organization, original.webhook);
        let told = Told { all: 1, differing: u64::from(original.body_differs), since: Utc::now(), epoch };
        let counted = self.add(key, told);
        if counted {
            metrics::counter!("hookledger_duplicates_counted_total").increment(1);
        } else {
            self.full.notify_one();
        }
        counted
    }

    fn add(&self, key: (OrganizationId, WebhookId), told: Told) -> bool {
        let Told { all, differing, since, epoch } = told;
        let mut known = self.known();
        let Some(known) = known.get_in(epoch) else { return false };
        if known.counts.len() >= COUNTED && !known.counts.contains_key(&key) {
            return false;
        }
        let (due, every) = (Instant::now() + FIRST_REPORT, FIRST_REPORT);
        let count = known.counts.entry(key).or_insert(Count { all: 0, differing: 0, since, due, every });
        if count.all == 0 {
            count.since = since;
        }
        count.all += all;
        count.differing += differing;
        count.since = count.since.min(since);
        true
    }

    /// Takes the counts that are due, or all. If more duplicates arrive, the next count is due later; if none
    /// arrived, the webhook is no longer watched.
    fn take(&self, all: bool) -> Vec<((OrganizationId, WebhookId), Told)> {
        let (mut known, now) = (self.known(), Instant::now());
        let mut taken = Vec::new();
        let (known, epoch) = known.get_with_epoch();
        known.counts.retain(|key, count| {
            if count.due > now && !all {
                return true;
            }
            if count.all == 0 {
                return false;
            }
            taken.push((*key, Told { all: count.all, differing: count.differing, since: count.since, epoch }));
            (count.all, count.differing) = (0, 0);
            count.every = (count.every * 2).min(LAST_REPORT);
            count.due = now + count.every;
            !all
        });
        taken
    }
}

/// A count to log.
#[derive(Clone, Copy, Debug)]
struct Told {
    all: u64,
    differing: u64,
    since: DateTime<Utc>,
    /// Epoch of the log in which these webhooks are known.
    epoch: Epoch,
}

/// Keeps only the last ones: a forgotten one costs a read of the log when it comes again.
fn keep_last<T>(known: &mut Vec<T>, new: T) {
    if known.len() >= KNOWN_EACH {
        known.remove(0);
    }
    known.push(new);
}

/// Logs how many duplicates were not logged individually.
pub struct DuplicateCounter {
    duplicates: Arc<Duplicates>,
    log: Log,
}

impl DuplicateCounter {
    #[must_use]
    pub fn new(duplicates: Arc<Duplicates>, log: Log) -> Self {
        Self { duplicates, log }
    }

    /// Reports until stopped, and a last time then.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let is_full = async {
                tokio::select! {
                    () = self.duplicates.full.notified() => true,
                    () = tokio::time::sleep(TICK) => false,
                }
            };
            let woken = stop.run_until_cancelled(is_full).await;
            self.report(woken != Some(false)).await;
            if woken.is_none() {
                return;
            }
        }
    }

    async fn report(&self, all: bool) {
        let (mut units, mut told) = (Vec::new(), Vec::new());
        for (key, count) in self.duplicates.take(all) {
            let Told { all, differing, since, epoch } = count;
            let event = WebhookEvent::DuplicatesCounted { count: all, differing, since };
            match NewEvent::of(key.0, key.1.uuid(), Sequence::End, &event, &Metadata::default()) {
                Ok(event) => {
                    units.push(Unit::new(vec![event]).decided_in(epoch));
                    told.push((key, count));
                }
                Err(error) => tracing::error!(%error, "could not serialize an event"),
            }
        }
        if units.is_empty() {
            return;
        }
        let verdicts = self.log.append_all(units).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "could not append the counts of duplicates; retrying");
            Vec::new()
        });
        // As with rejections: if a flush failed but was committed, its counts are added twice.
        let mut verdicts = verdicts.into_iter();
        for (key, told) in told {
            match verdicts.next() {
                // A conflict concerns only counts of an epoch that has ended: the log may have lost the
                // webhook.
                Some(Ok(_) | Err(AppendError::Conflict)) => {}
                Some(Err(_)) | None => drop(self.duplicates.add(key, told)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORGANIZATION: OrganizationId = OrganizationId::PLATFORM;
    const READ: Read<'_> = Read { body_sha256: "aa", logged: 0, is_full: false, epoch: Epoch::FIRST };

    fn id(number: u128) -> uuid::Uuid {
        uuid::Uuid::from_u128(number)
    }

    fn delivered(event: u128, provider: u128, body_sha256: &str) -> Delivered<'_> {
        let (event, provider) = (WebhookId::new(id(event)), ProviderId::new(id(provider)));
        Delivered { provider, event, body_sha256, transmission: None }
    }

    fn original(webhook: u128, body_differs: bool) -> Original {
        Original { webhook: WebhookId::new(id(webhook)), phase: Phase::Pending, body_differs }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_read_again_now_and_then_by_one() {
        let duplicates = Duplicates::default();
        assert_eq!(duplicates.look(&delivered(1, 1, "aa")), Look::Unknown);
        duplicates.remember(&delivered(1, 1, "aa"), original(7, false), READ);
        assert_eq!(duplicates.look(&delivered(1, 1, "aa")), Look::Duplicate(original(7, false)));
        assert_eq!(duplicates.look(&delivered(1, 1, "bb")), Look::Again);
        duplicates.remember(&delivered(1, 1, "bb"), original(7, true), READ);
        assert_eq!(duplicates.look(&delivered(1, 1, "bb")), Look::Duplicate(original(7, true)));
        // A transmission is valid for the body that it is bound to.
        let bound = Delivered { transmission: Some(TransmissionId::new(id(3))), ..delivered(1, 1, "aa") };
        assert_eq!(duplicates.look(&bound), Look::Again);
        duplicates.remember(&bound, original(7, false), READ);
        assert_eq!(duplicates.look(&bound), Look::Duplicate(original(7, false)));
        assert_eq!(duplicates.look(&Delivered { body_sha256: "bb", ..bound }), Look::Again);
        tokio::time::advance(LOOK_AGAIN + Duration::from_millis(1)).await;
        assert_eq!(duplicates.look(&delivered(1, 1, "aa")), Look::Again);
        assert_eq!(duplicates.look(&delivered(1, 1, "aa")), Look::Duplicate(original(7, false)));
        let full = Read { is_full: true, ..READ };
        duplicates.remember(&delivered(1, 1, "cc"), original(7, true), full);
        assert_eq!(duplicates.look(&delivered(1, 1, "dd")), Look::Duplicate(original(7, true)));
        duplicates.forget(WebhookId::new(id(1)));
        assert_eq!(duplicates.look(&delivered(1, 1, "aa")), Look::Unknown);
    }

    #[test]
    fn few_of_each_webhook_are_logged_and_so_many_of_an_endpoint() {
        let duplicates = Duplicates::default();
        let logged = |event, provider, times: u32| {
            duplicates.remember(&delivered(event, provider, "aa"), original(event, false), READ);
            (0..times).filter(|_| duplicates.is_logged(&delivered(event, provider, "aa"))).count()
        };
        assert_eq!(logged(1, 1, 100), LOGGED_EACH as usize);
        let of_endpoint: usize = (100..1_000).map(|event| logged(event, 1, 1)).sum();
        assert!((100..300).contains(&of_endpoint), "{of_endpoint}");
        assert_eq!(logged(2, 2, 1), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn counts_are_told_later_and_later_and_bounded_in_number() {
        let duplicates = Duplicates::default();
        let mut reports = Vec::new();
        for _ in 0..100 {
            assert!(duplicates.count(ORGANIZATION, original(1, false), Epoch::FIRST));
            tokio::time::advance(Duration::from_secs(1)).await;
            reports.extend(duplicates.take(false).into_iter().map(|(_, told)| told.all));
        }
        assert_eq!(reports, [2, 4, 8, 16, 32]);
        assert_eq!(duplicates.take(true)[0].1.all, 38);
        assert!(duplicates.take(true).is_empty());
        for webhook in 0..COUNTED as u128 {
            assert!(duplicates.count(ORGANIZATION, original(webhook, true), Epoch::FIRST));
        }
        assert!(!duplicates.count(ORGANIZATION, original(u128::MAX, true), Epoch::FIRST));
        assert!(duplicates.count(ORGANIZATION, original(1, true), Epoch::FIRST));
        assert_eq!(duplicates.take(true).iter().map(|(_, told)| told.differing).sum::<u64>(), COUNTED as u64 + 1);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_keeps_what_is_asked_for() {
        let duplicates = Duplicates::default();
        for event in 0..3 * REMEMBERED as u128 {
            duplicates.remember(&delivered(event, 1, "aa"), original(event, false), READ);
            assert_ne!(duplicates.look(&delivered(0, 1, "aa")), Look::Unknown);
        }
        let mut known = duplicates.known();
        let known = known.get();
        assert!(known.recent.len() + known.before.len() <= 2 * REMEMBERED);
    }

    #[test]
    fn nothing_is_remembered_of_a_log_that_lost_its_end() {
        let heads = Heads::default();
        let duplicates = Duplicates::of(&heads);
        duplicates.remember(&delivered(1, 1, "aa"), original(7, false), READ);
        assert!(duplicates.count(ORGANIZATION, original(7, false), Epoch::FIRST));
        let (counts, told) = (duplicates.take(true), duplicates.count(ORGANIZATION, original(7, false), Epoch::FIRST));
        assert!(told && counts.len() == 1);
        heads.begin_again();
        assert_eq!(duplicates.look(&delivered(1, 1, "aa")), Look::Unknown);
        assert!(duplicates.take(true).is_empty());
        // Neither memory from before nor a count that could not be appended survives.
        duplicates.remember(&delivered(1, 1, "aa"), original(7, false), READ);
        assert_eq!(duplicates.look(&delivered(1, 1, "aa")), Look::Unknown);
        assert!(!duplicates.count(ORGANIZATION, original(7, false), Epoch::FIRST));
        assert!(!duplicates.add(counts[0].0, counts[0].1));
    }
}
