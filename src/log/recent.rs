//! The newest events, as this node's writer appended them. A follower that has kept up finds them here
//! and reads nothing from the database.
//!
//! An event is here exactly as the log holds it. Whatever is not known for certain is left out, and read
//! from the database.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use hookledger_aggregates::ids::PARTITIONS;
use hookledger_aggregates::{Partition, RecordedEvent};

use super::commit::decode;
use super::heads::Epoch;
use super::read::Scope;
use super::stored_event::StoredEvent;
use super::unit::{LogPosition, NewEvent, Sequence, Unit};

/// Bytes that are kept in all, roughly.
const KEPT: usize = 64 << 20;
/// Bytes of an event besides its texts, with its decoded form.
const OVERHEAD: usize = 1_000;
/// Older events are dropped. A follower that is so far behind reads the database.
const OLDEST: Duration = Duration::from_secs(5);

/// An event of the log, in memory.
#[derive(Debug)]
pub(super) struct RecentEvent {
    pub(super) at: LogPosition,
    sequence: i64,
    recorded_at: DateTime<Utc>,
    /// Position of the last event of its unit in this partition.
    unit_end: i64,
    new: NewEvent,
    /// Decoded by the follower that needs it first; nothing where this release does not understand it.
    decoded: OnceLock<Option<RecordedEvent>>,
}

impl RecentEvent {
    /// The event as a follower gets it; nothing where this release does not understand it.
    pub(super) fn recorded(&self) -> Option<&RecordedEvent> {
        let decode = || decode(self.at.partition, self.new.aggregate_id, &self.stored("")).ok();
        self.decoded.get_or_init(decode).as_ref()
    }

    /// The event as the columns of the log hold it.
    pub(super) fn stored<'a>(&'a self, aggregate_id: &'a str) -> StoredEvent<&'a str> {
        StoredEvent {
            organization: self.new.organization.uuid(),
            partition: self.at.partition.number(),
            position: self.at.position,
            sequence: self.sequence,
            recorded_at: self.recorded_at.timestamp_micros(),
            aggregate_type: self.new.aggregate_type,
            aggregate_id,
            event_type: &self.new.event_type,
            event_version: &self.new.event_version,
            payload: &self.new.payload,
            metadata: &self.new.metadata,
        }
    }

    /// The stream that it is in.
    pub(super) fn stream(&self) -> String {
        self.new.aggregate_id.to_string()
    }

    fn weight(&self) -> usize {
        self.new.payload.len() + self.new.metadata.len() + OVERHEAD
    }
}

/// The end of a partition, and its newest events without a gap.
#[derive(Debug, Default)]
struct Ring {
    /// Last position that this node knows of, and when that event was recorded.
    end: Option<(i64, DateTime<Utc>)>,
    events: VecDeque<Arc<RecentEvent>>,
}

#[derive(Debug, Default)]
struct Rings {
    epoch: Epoch,
    rings: [Ring; PARTITIONS as usize],
    /// The events in the order in which they came, and when.
    order: VecDeque<(LogPosition, Instant)>,
    bytes: usize,
}

/// The newest events of every partition. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<Rings>>);

impl Recent {
    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes when the last event of a partition was recorded, as the database says.
    pub(super) fn note_end(&self, epoch: Epoch, at: LogPosition, recorded_at: DateTime<Utc>) {
        let mut rings = self.rings();
        if !rings.begin(epoch) {
            return;
        }
        let ring = &mut rings.rings[at.partition.index()];
        // The writer may be further by now, and then knows better.
        if ring.end.is_none_or(|(end, _)| end < at.position) {
            ring.end = Some((at.position, recorded_at));
            rings.forget(at.partition);
        }
    }

    /// Takes over the units of a flush, each with the place of its last event. `clock` is the database's as
    /// the flush read it.
    ///
    /// In each partition the database puts events whose sequence it chose after all others.
    pub(super) fn push(
        &self,
        epoch: Epoch,
        clock: DateTime<Utc>,
        appended: impl IntoIterator<Item = (Unit, LogPosition)>,
    ) {
        let now = Instant::now();
        let mut rings = self.rings();
        if !rings.begin(epoch) {
            return;
        }
        let mut chosen = [(0, 0); PARTITIONS as usize];
        for (unit, last) in appended {
            let count = i64::try_from(unit.events.len()).unwrap_or(i64::MAX);
            // Where the others of its events went is not known: what follows them finds a gap.
            if unit.events.iter().any(|event| event.partition != last.partition) {
                continue;
            }
            if unit.needs_placing() {
                let (end, events) = &mut chosen[last.partition.index()];
                (*end, *events) = (last.position.max(*end), *events + count);
                continue;
            }
            rings.push(last.partition, last.position - count, clock, now, unit.events);
        }
        for partition in Partition::all() {
            let (end, events) = chosen[partition.index()];
            if events > 0 {
                rings.skip(partition, end - events, clock, end);
            }
        }
        rings.shrink(now);
    }

    /// Up to `limit` events of a scope after a place, and the rest of the unit that the last is in; nothing where
    /// they are not all here.
    ///
    /// `head` is the last position of the partition that is known of: a scope that leaves events out is only
    /// answered where everything up to there is here.
    pub(super) fn after(
        &self,
        epoch: Epoch,
        cursor: LogPosition,
        head: i64,
        scope: Scope,
        limit: usize,
    ) -> Option<Vec<Arc<RecentEvent>>> {
        let rings = self.rings();
        let ring = &rings.rings[cursor.partition.index()];
        let (end, first) = (ring.end?.0, ring.events.front()?.at.position);
        let is_here = rings.epoch == epoch && first <= cursor.position + 1 && cursor.position < end;
        if !is_here || (scope != Scope::All && end < head) {
            return None;
        }
        let skip = usize::try_from(cursor.position + 1 - first).ok()?;
        let mut wanted = ring.events.iter().skip(skip).filter(|event| scope.wants(&event.new));
        let mut found: Vec<_> = wanted.by_ref().take(limit).cloned().collect();
        let unit_end = found.last().map_or(0, |last| last.unit_end);
        found.extend(wanted.take_while(|event| event.at.position <= unit_end).cloned());
        Some(found)
    }

    /// Drops what is old.
    pub(super) fn expire(&self) {
        self.rings().shrink(Instant::now());
    }
}

impl Rings {
    /// Begins again if this is a later epoch: nothing of the earlier one holds. Returns false for an earlier
    /// one, whose late news must not empty the rings.
    fn begin(&mut self, epoch: Epoch) -> bool {
        if self.epoch < epoch {
            *self = Self { epoch, ..Self::default() };
        }
        self.epoch == epoch
    }

    /// When an event was recorded that follows the one at `before`; nothing where that is not known.
    fn recorded_at(&self, partition: Partition, before: i64, clock: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let end = if before == 0 { Some((0, DateTime::<Utc>::MIN_UTC)) } else { self.rings[partition.index()].end };
        // As the append has it: time never goes backwards in a partition.
        end.filter(|(end, _)| *end == before).map(|(_, recorded_before)| recorded_before.max(clock))
    }

    fn push(&mut self, partition: Partition, before: i64, clock: DateTime<Utc>, now: Instant, events: Vec<NewEvent>) {
        let Some(recorded_at) = self.recorded_at(partition, before, clock) else {
            // Somebody else appended in between.
            return self.skip(partition, before, clock, before);
        };
        let ring = &mut self.rings[partition.index()];
        let unit_end = before.saturating_add_unsigned(events.len() as u64);
        for (position, new) in (before + 1..).zip(events) {
            let Sequence::At(sequence) = new.sequence else { continue };
            let at = LogPosition { partition, position };
            let event = RecentEvent { at, sequence, recorded_at, unit_end, new, decoded: OnceLock::new() };
            self.bytes += event.weight();
            ring.events.push_back(Arc::new(event));
            ring.end = Some((position, recorded_at));
            self.order.push_back((at, now));
        }
    }

    /// Leaves out the events after `before` up to `end`.
    fn skip(&mut self, partition: Partition, before: i64, clock: DateTime<Utc>, end: i64) {
        let recorded_at = self.recorded_at(partition, before, clock);
        self.rings[partition.index()].end = recorded_at.map(|recorded_at| (end, recorded_at));
        self.forget(partition);
    }

    fn shrink(&mut self, now: Instant) {
        let is_too_old = |at: Instant| now.saturating_duration_since(at) > OLDEST;
        while let Some((at, since)) = self.order.front().copied() {
            if self.bytes <= KEPT && !is_too_old(since) {
                return;
            }
            self.order.pop_front();
            let events = &mut self.rings[at.partition.index()].events;
            // Those that were forgotten are not there any more.
            if events.front().is_some_and(|event| event.at == at) {
                self.bytes -= events.pop_front().map_or(0, |event| event.weight());
            }
        }
    }

    fn forget(&mut self, partition: Partition) {
        let events = std::mem::take(&mut self.rings[partition.index()].events);
        self.bytes -= events.iter().map(|event| event.weight()).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use hookledger_aggregates::webhook::WebhookEvent;
    use hookledger_aggregates::{Metadata, OrganizationId};
    use uuid::Uuid;

    use super::*;

    const ORGANIZATION: OrganizationId = OrganizationId::PLATFORM;

    fn unit(sequence: Sequence, events: i64) -> Unit {
        let event = WebhookEvent::Merged { into: hookledger_aggregates::WebhookId::default() };
        let at = |offset| match sequence {
            Sequence::At(first) => Sequence::At(first + offset),
            Sequence::End => Sequence::End,
        };
        let new = |offset| NewEvent::of(ORGANIZATION, Uuid::nil(), at(offset), &event, &Metadata::default()).unwrap();
        Unit::new((0..events).map(new).collect())
    }

    fn at(position: i64) -> LogPosition {
        LogPosition { partition: ORGANIZATION.partition(), position }
    }

    fn clock(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn push(recent: &Recent, seconds: i64, unit: Unit, last: i64) {
        recent.push(Epoch::FIRST, clock(seconds), [(unit, at(last))]);
    }

    fn positions(recent: &Recent, after: i64, head: i64, scope: Scope) -> Option<Vec<i64>> {
        let found = recent.after(Epoch::FIRST, at(after), head, scope, 10)?;
        Some(found.iter().map(|event| event.recorded().unwrap().position).collect())
    }

    #[test]
    fn what_was_appended_one_after_the_other_is_there_and_time_never_goes_back() {
        let recent = Recent::default();
        push(&recent, 9, unit(Sequence::At(1), 2), 2);
        push(&recent, 7, unit(Sequence::At(3), 1), 3);
        assert_eq!(positions(&recent, 0, 3, Scope::All), Some(vec![1, 2, 3]));
        assert_eq!(positions(&recent, 2, 3, Scope::All), Some(vec![3]));
        assert_eq!(positions(&recent, 3, 3, Scope::All), None);
        let last = recent.after(Epoch::FIRST, at(2), 3, Scope::All, 1).unwrap();
        assert_eq!((last[0].recorded_at, last[0].sequence), (clock(9), 3));
        assert!(recent.after(Epoch::default(), at(0), 3, Scope::All, 2).is_some_and(|found| found.len() == 2));
    }

    #[test]
    fn what_came_after_events_of_another_node_is_there_once_their_time_is_known() {
        let recent = Recent::default();
        push(&recent, 1, unit(Sequence::At(1), 1), 1);
        push(&recent, 2, unit(Sequence::At(1), 1), 5);
        assert_eq!(positions(&recent, 4, 5, Scope::All), None);
        recent.note_end(Epoch::FIRST, at(5), clock(4));
        push(&recent, 3, unit(Sequence::At(1), 1), 6);
        assert_eq!(positions(&recent, 5, 6, Scope::All), Some(vec![6]));
        assert_eq!(recent.after(Epoch::FIRST, at(5), 6, Scope::All, 1).unwrap()[0].recorded_at, clock(4));
        // Older news of the end changes nothing.
        recent.note_end(Epoch::FIRST, at(5), clock(4));
        assert_eq!(positions(&recent, 5, 6, Scope::All), Some(vec![6]));
    }

    #[test]
    fn a_sequence_that_the_database_chose_is_read_from_there() {
        let recent = Recent::default();
        push(&recent, 1, unit(Sequence::At(1), 1), 1);
        // They come after the others of their flush.
        let flush = [(unit(Sequence::End, 1), at(3)), (unit(Sequence::At(2), 1), at(2))];
        recent.push(Epoch::FIRST, clock(1), flush);
        push(&recent, 1, unit(Sequence::At(3), 1), 4);
        assert_eq!(positions(&recent, 0, 4, Scope::All), None);
        assert_eq!(positions(&recent, 2, 4, Scope::All), None);
        assert_eq!(positions(&recent, 3, 4, Scope::All), Some(vec![4]));
        let mut mixed = unit(Sequence::At(4), 1);
        mixed.events.extend(unit(Sequence::End, 1).events);
        recent.push(Epoch::FIRST, clock(1), [(mixed, at(7)), (unit(Sequence::At(5), 1), at(6))]);
        for after in 3..7 {
            assert_eq!(positions(&recent, after, 7, Scope::All), None);
        }
    }

    #[test]
    fn a_scope_that_leaves_events_out_is_not_answered_where_others_appended_too() {
        let recent = Recent::default();
        push(&recent, 1, unit(Sequence::At(1), 1), 1);
        assert_eq!(positions(&recent, 0, 1, Scope::Pending), Some(vec![]));
        assert_eq!(positions(&recent, 0, 2, Scope::Pending), None);
        assert_eq!(positions(&recent, 0, 2, Scope::All), Some(vec![1]));
    }

    #[test]
    fn another_epoch_begins_with_nothing() {
        let recent = Recent::default();
        push(&recent, 1, unit(Sequence::At(1), 1), 1);
        let heads = crate::log::Heads::default();
        heads.begin_again();
        assert!(recent.after(heads.epoch(), at(0), 1, Scope::All, 1).is_none());
        recent.push(heads.epoch(), clock(1), [(unit(Sequence::At(1), 1), at(1))]);
        assert!(recent.after(Epoch::FIRST, at(0), 1, Scope::All, 1).is_none());
        push(&recent, 1, unit(Sequence::At(1), 1), 1);
        assert!(recent.after(heads.epoch(), at(0), 1, Scope::All, 1).is_some(), "late news of an earlier epoch");
    }

    #[test]
    fn it_is_bounded() {
        let recent = Recent::default();
        let mut large = unit(Sequence::At(1), 1);
        large.events[0].payload = "x".repeat(1 << 20);
        let last = 100;
        for position in 1..=last {
            push(&recent, 1, large.clone(), position);
            assert!(recent.rings().bytes <= KEPT);
        }
        assert!(recent.rings().order.len() > 50);
        assert_eq!(positions(&recent, 0, last, Scope::All), None);
        assert!(recent.after(Epoch::FIRST, at(last - 1), last, Scope::All, 1).is_some());
        recent.rings().shrink(Instant::now() + OLDEST * 2);
        let rings = recent.rings();
        assert_eq!((rings.bytes, rings.order.len()), (0, 0));
    }
}
