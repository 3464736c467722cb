//! Places: limits on concurrent attempts, per destination and in total, so that a hanging destination does
//! not delay deliveries to others.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hookledger_aggregates::{DestinationId, OrganizationId};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::circuit::{Circuit, Health, State};
use super::queue::{Busy, BusyReason, CircuitRow, Room};

/// Concurrent attempts per node.
const PLACES: usize = 2_048;
/// Bytes of bodies that attempts hold in memory, in units of [`BYTE_UNIT`]: in total, and per destination. A
/// larger body is sent anyway, alone.
const BYTE_UNITS: usize = (256 << 20) / BYTE_UNIT;
const BYTE_UNITS_EACH: usize = (64 << 20) / BYTE_UNIT;
const BYTE_UNIT: usize = 4 << 10;

/// Every destination that has running attempts or a circuit with failures.
#[derive(Debug)]
pub struct Places {
    destinations: Mutex<HashMap<DestinationId, InUse>>,
    /// Destinations that were busy at some time since the last call of [`Places::busy`].
    busy: Mutex<HashSet<Busy>>,
    all: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// Notified when a place is given back at a destination that had none left.
    freed: Notify,
}

#[derive(Debug)]
struct InUse {
    organization: OrganizationId,
    concurrency: u32,
    in_flight: u32,
    circuit: Circuit,
    bytes: Arc<Semaphore>,
}

impl InUse {
    fn room(&self, requested: bool, now: Instant) -> u32 {
        self.circuit.admits(self.concurrency.saturating_sub(self.in_flight), self.in_flight, requested, now)
    }

    /// Why the destination is busy now, if it is.
    fn busy(&self, destination: DestinationId, now: Instant) -> Option<Busy> {
        let reason = match self.circuit.state() {
            _ if self.room(false, now) > 0 => return None,
            State::Closed => BusyReason::Concurrency,
            State::Open { .. } | State::HalfOpen { .. } => BusyReason::CircuitOpen,
        };
        Some(Busy { organization: self.organization, destination, reason })
    }
}

impl Default for Places {
    fn default() -> Self {
        Self {
            destinations: Mutex::default(),
            busy: Mutex::default(),
            all: Arc::new(Semaphore::new(PLACES)),
            bytes: Arc::new(Semaphore::new(BYTE_UNITS)),
            freed: Notify::new(),
        }
    }
}

/// A place at a destination, given back when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    destination: DestinationId,
    /// The circuit, if taking this place changed its state.
    pub circuit: Option<CircuitRow>,
    _all: OwnedSemaphorePermit,
}

/// Memory reserved for a body.
#[derive(Debug)]
pub struct BodyRoom {
    _each: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, HashMap<DestinationId, InUse>> {
        self.destinations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place at a destination with this concurrency; `None` if it is full or its circuit is open.
    /// `requested`: a person requested the attempt.
    pub fn take(
        self: &Arc<Self>,
        organization: OrganizationId,
        destination: DestinationId,
        concurrency: u32,
        requested: bool,
        now: Instant,
    ) -> Option<Place> {
        let mut destinations = self.lock();
        let in_use = destinations.entry(destination).or_insert_with(|| InUse {
            organization,
            concurrency,
            in_flight: 0,
            circuit: Circuit::default(),
            bytes: Arc::new(Semaphore::new(BYTE_UNITS_EACH)),
        });
        in_use.concurrency = concurrency;
        if in_use.room(requested, now) == 0 {
            self.note_busy(in_use.busy(destination, now));
            return None;
        }
        let all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let circuit = in_use.circuit.begin().then(|| row(destination, in_use));
        in_use.in_flight += 1;
        Some(Place { places: Arc::clone(self), destination, circuit, _all: all })
    }

    fn note_busy(&self, busy: Option<Busy>) {
        if let Some(busy) = busy {
            self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(busy);
        }
    }

    /// How many more attempts can start in total.
    pub fn free(&self) -> u32 {
        u32::try_from(self.all.available_permits()).unwrap_or(u32::MAX)
    }

    /// How many more attempts can start at a destination with this concurrency.
    pub fn free_at(&self, destination: DestinationId, concurrency: u32, requested: bool, now: Instant) -> u32 {
        self.lock().get(&destination).map_or(concurrency, |in_use| in_use.room(requested, now))
    }

    /// Destinations with running attempts and the free places of each, and the free places in total.
    pub fn room(&self, now: Instant) -> (Vec<Room>, u32) {
        let room = |(destination, in_use): (&DestinationId, &InUse)| {
            self.note_busy(in_use.busy(*destination, now));
            Room {
                organization: in_use.organization,
                destination: *destination,
                running: in_use.in_flight,
                free: in_use.room(false, now),
            }
        };
        (self.lock().iter().map(room).collect(), self.free())
    }

    /// Destinations that were busy since the last call.
    pub fn busy(&self, now: Instant) -> Vec<Busy> {
        self.lock().iter().for_each(|(destination, in_use)| self.note_busy(in_use.busy(*destination, now)));
        std::mem::take(&mut *self.busy.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }

    /// Waits until a place is given back that somebody may wait for.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Notes the outcome of an attempt; returns the circuit if its state changed.
    pub fn note(&self, destination: DestinationId, health: Health, now: Instant) -> Option<CircuitRow> {
        let mut destinations = self.lock();
        let in_use = destinations.get_mut(&destination)?;
        let moved = in_use.circuit.note(health, now);
        moved.then(|| row(destination, in_use))
    }

    /// Waits for memory for a body of that many bytes.
    pub async fn body_room(&self, destination: DestinationId, bytes: usize) -> Option<BodyRoom> {
        let each = Arc::clone(&self.lock().get(&destination)?.bytes);
        let units = |most: usize| u32::try_from(bytes.div_ceil(BYTE_UNIT).clamp(1, most)).unwrap_or(u32::MAX);
        // The semaphores are never closed.
        let each = each.acquire_many_owned(units(BYTE_UNITS_EACH)).await.ok()?;
        let all = Arc::clone(&self.bytes).acquire_many_owned(units(BYTE_UNITS)).await.ok()?;
        Some(BodyRoom { _each: each, _all: all })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut destinations = self.places.lock();
        let Some(in_use) = destinations.get_mut(&self.destination) else { return };
        let was_full = in_use.in_flight >= in_use.concurrency;
        in_use.in_flight -= 1;
        // Keeps the map bounded: only destinations in use or in trouble stay.
        if in_use.in_flight == 0 && in_use.circuit.state() == State::Closed && in_use.circuit.failures() == 0 {
            destinations.remove(&self.destination);
        }
        if was_full || self.places.all.available_permits() == 0 {
            self.places.freed.notify_one();
        }
    }
}

fn row(destination: DestinationId, in_use: &InUse) -> CircuitRow {
    let state = in_use.circuit.state();
    let (opened, probe) = match state {
        State::Closed => (None, None),
        State::Open { since, probe_at } => (Some(since), Some(probe_at)),
        State::HalfOpen { since } => (Some(since), None),
    };
    let failures = in_use.circuit.failures();
    CircuitRow { organization: in_use.organization, destination, state: state.as_str(), failures, opened, probe }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn destination(n: u128) -> DestinationId {
        DestinationId::new(Uuid::from_u128(n))
    }

    #[test]
    fn a_full_destination_takes_no_more_and_others_do() {
        let places = Arc::new(Places::default());
        let organization = OrganizationId::from_slug("a");
        let take = |n| places.take(organization, destination(n), 2, false, Instant::now());
        let held = [take(1).unwrap(), take(1).unwrap()];
        assert!(take(1).is_none());
        assert!(take(2).is_some());
        let (rooms, _) = places.room(Instant::now());
        assert_eq!(rooms.iter().map(|room| (room.destination, room.free)).collect::<Vec<_>>(), [(destination(1), 0)]);
        drop(held);
        assert!(take(1).is_some());
        assert_eq!(places.room(Instant::now()).0.len(), 0);
    }

    #[tokio::test]
    async fn large_bodies_of_one_destination_wait_for_each_other_alone() {
        let places = Arc::new(Places::default());
        let organization = OrganizationId::from_slug("a");
        let _held: Vec<_> =
            (1..=2).map(|n| places.take(organization, destination(n), 9, false, Instant::now()).unwrap()).collect();
        let _first = places.body_room(destination(1), 64 << 20).await.unwrap();
        let second = places.body_room(destination(1), 1);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), second).await.is_err());
        assert!(places.body_room(destination(2), 25 << 20).await.is_some());
    }
}
