//! Memory for the bodies of requests in flight: who may hold how much, and who gives way.
//!
//! A slow client holds memory for as long as it is slow. So the memory is divided: small webhooks have a part
//! of their own, and so have people. No client and no endpoint gets all of a part. If a part is full, the
//! body that has been idle the longest gives way to the newcomer, so active senders are served before waiting
//! ones.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::BodyError;

/// Maximum size of a small webhook in bytes.
pub(super) const SMALL: usize = 64 << 10;
/// A large body gives way once it has been idle for this long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Budget for the bodies of all requests in flight, in bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BodyBudget {
    /// For requests other than webhooks.
    people: Arc<Room>,
    /// For webhooks of up to [`SMALL`] bytes, and for the beginning of those of undeclared length.
    small: Arc<Room>,
    /// For larger webhooks.
    large: Arc<Room>,
}

/// The owner of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// One address, or a /64 of IPv6; `None` if many clients share it.
    pub client: Option<IpAddr>,
    /// The provider of a webhook.
    pub endpoint: Option<Uuid>,
}

/// The rooms that a body's bytes count towards.
#[derive(Clone, Debug)]
pub struct Claim {
    first: Arc<Room>,
    /// The room for the bytes beyond [`SMALL`].
    rest: Option<Arc<Room>>,
    owner: Owner,
}

impl BodyBudget {
    /// An eighth is for people and a quarter for small webhooks. One body of the maximum size always fits.
    #[must_use]
    pub fn new(bytes: usize, max_body: usize) -> Self {
        let (people, small) = (bytes / 8, bytes / 4);
        let large = (bytes - people - small).max(max_body);
        Self {
            people: Room::new(people, people / 2, Duration::ZERO),
            small: Room::new(small, small / 2, Duration::ZERO),
            large: Room::new(large, (large / 2).max(max_body), PATIENCE),
        }
    }

    /// For the body of a webhook with a declared length, if any.
    #[must_use]
    pub fn for_webhook(&self, owner: Owner, declared: Option<u64>) -> Claim {
        if declared.is_some_and(|length| length > SMALL as u64) {
            return Claim { first: Arc::clone(&self.large), rest: None, owner };
        }
        Claim { first: Arc::clone(&self.small), rest: Some(Arc::clone(&self.large)), owner }
    }

    /// For the body of any other request.
    #[must_use]
    pub fn for_people(&self, client: Option<IpAddr>) -> Claim {
        Claim { first: Arc::clone(&self.people), rest: None, owner: Owner { client, endpoint: None } }
    }
}

/// A body's share of the budget, returned when dropped.
#[derive(Debug)]
pub struct Held {
    first: Option<Ticket>,
    rest: Option<Ticket>,
    /// Cancelled when the body has to give way.
    gone: CancellationToken,
    claim: Option<Claim>,
    bytes: usize,
}

impl Held {
    /// For a body of our own.
    pub(super) fn none() -> Self {
        Self { first: None, rest: None, gone: CancellationToken::new(), claim: None, bytes: 0 }
    }

    pub(super) fn new(claim: Claim) -> Self {
        Self { claim: Some(claim), ..Self::none() }
    }

    /// Resolves when the body has to give way.
    pub(super) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// Takes more bytes at once or not at all: a body that waited for room would itself hold some.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), BodyError> {
        let Some(claim) = &self.claim else { return Ok(()) };
        let in_first = match claim.rest {
            Some(_) => bytes.min(SMALL.saturating_sub(self.bytes)),
            None => bytes,
        };
        if in_first > 0 {
            let enter = || claim.first.enter(claim.owner, &self.gone);
            self.first.get_or_insert_with(enter).take(in_first)?;
        }
        if let Some(rest) = claim.rest.as_ref().filter(|_| bytes > in_first) {
            self.rest.get_or_insert_with(|| rest.enter(claim.owner, &self.gone)).take(bytes - in_first)?;
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Notes that the body made progress.
    pub(super) fn moved(&self) {
        self.tickets().for_each(Ticket::moved);
    }

    /// Marks the body as complete, so that it no longer gives way.
    pub(super) fn complete(&self) -> Result<(), BodyError> {
        self.tickets().try_for_each(Ticket::complete)
    }

    fn tickets(&self) -> impl Iterator<Item = &Ticket> {
        self.first.iter().chain(&self.rest)
    }
}

#[derive(Debug)]
struct Room {
    size: usize,
    /// Maximum share of one client, and of one endpoint.
    share: usize,
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    by_client: HashMap<IpAddr, usize>,
    by_endpoint: HashMap<Uuid, usize>,
    next: u64,
    bodies: HashMap<u64, Body>,
}

#[derive(Debug)]
struct Body {
    owner: Owner,
    bytes: usize,
    /// Since when the body has been idle; `None` if it is complete or gone.
    still_since: Option<Instant>,
    gone: CancellationToken,
}

/// One body's share of a room.
#[derive(Debug)]
struct Ticket {
    room: Arc<Room>,
    id: u64,
}

impl Room {
    fn new(size: usize, share: usize, patience: Duration) -> Arc<Self> {
        Arc::new(Self { size, share, patience, state: Mutex::default() })
    }

    fn enter(self: &Arc<Self>, owner: Owner, gone: &CancellationToken) -> Ticket {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        let body = Body { owner, bytes: 0, still_since: Some(Instant::now()), gone: gone.clone() };
        state.bodies.insert(id, body);
        drop(state);
        Ticket { room: Arc::clone(self), id }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which bodies have to give way to make room for more bytes; `None` if there is room.
    fn obstacle(&self, state: &State, owner: Owner, more: usize) -> Option<Obstacle> {
        let of = |used: Option<&usize>| used.copied().unwrap_or_default() + more > self.share;
        if let Some(client) = owner.client.filter(|client| of(state.by_client.get(client))) {
            return Some(Obstacle::Client(client));
        }
        if let Some(endpoint) = owner.endpoint.filter(|endpoint| of(state.by_endpoint.get(endpoint))) {
            return Some(Obstacle::Endpoint(endpoint));
        }
        (state.used + more > self.size).then_some(Obstacle::Everybody)
    }
}

/// Whose bodies occupy the room.
#[derive(Clone, Copy)]
enum Obstacle {
    Client(IpAddr),
    Endpoint(Uuid),
    Everybody,
}

impl Obstacle {
    fn is(self, owner: Owner) -> bool {
        match self {
            Self::Client(client) => owner.client == Some(client),
            Self::Endpoint(endpoint) => owner.endpoint == Some(endpoint),
            Self::Everybody => true,
        }
    }
}

impl State {
    /// Drops the body that has been idle the longest among those in the way.
    fn make_way(&mut self, newcomer: u64, obstacle: Obstacle, patience: Duration) -> bool {
        let now = Instant::now();
        let others =
            self.bodies.iter().filter(|(id, body)| **id != newcomer && body.bytes > 0 && obstacle.is(body.owner));
        let still = others.filter_map(|(id, body)| Some((body.still_since?, *id)));
        let Some((since, id)) = still.min().filter(|(since, _)| now.duration_since(*since) >= patience) else {
            return false;
        };
        debug_assert!(since <= now, "nobody is still in the future");
        self.give_back(id);
        if let Some(body) = self.bodies.get_mut(&id) {
            body.still_since = None;
            body.gone.cancel();
        }
        true
    }

    fn give_back(&mut self, id: u64) {
        let Some(body) = self.bodies.get_mut(&id) else { return };
        let (bytes, owner) = (std::mem::take(&mut body.bytes), body.owner);
        self.used -= bytes;
        if let Some(client) = owner.client {
            subtract(&mut self.by_client, client, bytes);
        }
        if let Some(endpoint) = owner.endpoint {
            subtract(&mut self.by_endpoint, endpoint, bytes);
        }
    }
}

fn subtract<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: K, bytes: usize) {
    if let Some(count) = counts.get_mut(&key) {
        *count = count.saturating_sub(bytes);
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

impl Ticket {
    fn take(&self, bytes: usize) -> Result<(), BodyError> {
        let mut state = self.room.state();
        let Some(owner) = state.bodies.get(&self.id).filter(|body| body.still_since.is_some()).map(|body| body.owner)
        else {
            return Err(BodyError::NoRoom);
        };
        while let Some(obstacle) = self.room.obstacle(&state, owner, bytes) {
            if !state.make_way(self.id, obstacle, self.room.patience) {
                return Err(BodyError::NoRoom);
            }
        }
        state.used += bytes;
        if let Some(client) = owner.client {
            *state.by_client.entry(client).or_default() += bytes;
        }
        if let Some(endpoint) = owner.endpoint {
            *state.by_endpoint.entry(endpoint).or_default() += bytes;
        }
        if let Some(body) = state.bodies.get_mut(&self.id) {
            body.bytes += bytes;
        }
        Ok(())
    }

    fn moved(&self) {
        if let Some(body) = self.room.state().bodies.get_mut(&self.id) {
            body.still_since = body.still_since.map(|_| Instant::now());
        }
    }

    fn complete(&self) -> Result<(), BodyError> {
        let mut state = self.room.state();
        let whole = state.bodies.get_mut(&self.id).and_then(|body| body.still_since.take());
        whole.map(drop).ok_or(BodyError::NoRoom)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.room.state();
        state.give_back(self.id);
        state.bodies.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(client: u8, endpoint: u128) -> Owner {
        Owner { client: Some([192, 0, 2, client].into()), endpoint: Some(Uuid::from_u128(endpoint)) }
    }

    /// An incomplete body of that many bytes.
    fn begun(claim: &Claim, bytes: usize) -> Result<Held, BodyError> {
        let mut held = Held::new(claim.clone());
        held.take(bytes).map(|()| held)
    }

    #[tokio::test(start_paused = true)]
    async fn no_client_and_no_endpoint_holds_a_whole_room() {
        let budget = BodyBudget::new(128 << 20, 25 << 20);
        let large = |owner| budget.for_webhook(owner, Some(25 << 20));
        let held: Vec<_> = (0..9).filter_map(|n| begun(&large(from(1, n)), 21 << 20).ok()).collect();
        assert_eq!(held.len(), 1, "one client's, at several endpoints");
        assert!(begun(&large(from(2, 9)), 21 << 20).is_ok());
        drop(held);
        let held: Vec<_> = (0..9).filter_map(|n| begun(&large(from(n, 1)), 21 << 20).ok()).collect();
        assert_eq!(held.len(), 1, "at one endpoint, of several clients");
        assert!(begun(&large(from(2, 9)), 21 << 20).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_stands_still_gives_way() {
        let budget = BodyBudget::new(128 << 20, 25 << 20);
        let large = budget.for_webhook(Owner::default(), Some(25 << 20));
        let held: Vec<_> = std::iter::from_fn(|| begun(&large, 20 << 20).ok()).take(99).collect();
        assert_eq!(held.len(), 4);
        tokio::time::advance(PATIENCE).await;
        held[0].moved();
        let newcomer = begun(&large, 20 << 20).unwrap();
        let gone: Vec<bool> = held.iter().map(|held| held.gone().is_cancelled()).collect();
        assert_eq!(gone.iter().filter(|gone| **gone).count(), 1);
        assert!(!gone[0], "it has just moved");
        assert!(newcomer.complete().is_ok());
        let given_way = gone.iter().position(|gone| *gone).unwrap();
        assert!(held[given_way].complete().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn small_webhooks_and_people_find_room_whatever_others_hold() {
        let budget = BodyBudget::new(8 << 20, 1 << 20);
        let (large, small) = (Some(1 << 20), Some(100));
        let _full: Vec<_> =
            std::iter::from_fn(|| begun(&budget.for_webhook(Owner::default(), large), 1 << 20).ok()).collect();
        let still: Vec<_> =
            (0..999).map(|_| begun(&budget.for_webhook(Owner::default(), None), SMALL).unwrap()).collect();
        assert!(still.iter().any(|held| held.gone().is_cancelled()));
        let webhook = begun(&budget.for_webhook(Owner::default(), small), 100).unwrap();
        assert!(webhook.complete().is_ok());
        let person = begun(&budget.for_people(None), 100).unwrap();
        assert!(person.complete().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_whole_gives_way_to_nobody_and_is_given_back() {
        let budget = BodyBudget::new(1 << 20, 1 << 20);
        let claim = budget.for_people(None);
        let whole = begun(&claim, 128 << 10).unwrap();
        whole.complete().unwrap();
        assert!(begun(&claim, 1).is_err());
        drop(whole);
        assert!(begun(&claim, 128 << 10).is_ok());
        assert_eq!(budget.people.state().used, 0);
        assert!(budget.people.state().bodies.is_empty());
    }
}
