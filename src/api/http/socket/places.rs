//! How many sockets this node holds: of users who signed in, and of strangers who have not yet.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::close::Close;

/// Sockets of this node, and of one user on it.
const MAX_SOCKETS: usize = 2_000;
const MAX_SOCKETS_PER_USER: usize = 20;
/// Unauthenticated sockets of this node, and of one client. A newcomer replaces the one that has waited
/// longest.
const MAX_STRANGERS: usize = 512;
const MAX_STRANGERS_PER_CLIENT: usize = 32;

/// The sockets of this node.
#[derive(Clone)]
pub struct Sockets {
    stop: CancellationToken,
    all: Arc<Semaphore>,
    users: Arc<Mutex<HashMap<Uuid, usize>>>,
    strangers: Arc<Mutex<Strangers>>,
}

/// The unauthenticated sockets, in the order of arrival.
#[derive(Default)]
struct Strangers {
    next: u64,
    waiting: BTreeMap<u64, (Option<IpAddr>, CancellationToken)>,
}

impl Strangers {
    /// Adds a stranger. Where there are too many, another one gives way.
    fn enter(&mut self, client: Option<IpAddr>) -> (u64, CancellationToken) {
        let of_client = |(_, (other, _)): &(&u64, &(Option<IpAddr>, CancellationToken))| *other == client;
        let too_many_of_client =
            client.is_some() && self.waiting.iter().filter(of_client).count() >= MAX_STRANGERS_PER_CLIENT;
        let gives_way = if too_many_of_client {
            self.waiting.iter().find(of_client).map(|(id, _)| *id)
        } else {
            self.waiting.keys().next().copied().filter(|_| self.waiting.len() >= MAX_STRANGERS)
        };
        if let Some((_, gone)) = gives_way.and_then(|id| self.waiting.remove(&id)) {
            gone.cancel();
        }
        let (id, gone) = (self.next, CancellationToken::new());
        self.next += 1;
        self.waiting.insert(id, (client, gone.clone()));
        (id, gone)
    }
}

/// The place of an unauthenticated socket.
pub(super) struct Anteroom {
    strangers: Arc<Mutex<Strangers>>,
    id: u64,
    gone: CancellationToken,
}

impl Anteroom {
    /// Cancelled when another stranger takes the place.
    pub(super) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }
}

impl Drop for Anteroom {
    fn drop(&mut self) {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&self.id);
    }
}

/// The place of one of a user's sockets.
pub(super) struct Seat {
    users: Arc<Mutex<HashMap<Uuid, usize>>>,
    user: Uuid,
    _place: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = users.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.user);
            }
        }
    }
}

impl Sockets {
    /// All sockets are closed when `stop` is cancelled.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, all: Arc::new(Semaphore::new(MAX_SOCKETS)), users: Arc::default(), strangers: Arc::default() }
    }

    pub(super) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// A place for an unauthenticated socket.
    pub(super) fn wait(&self, client: Option<IpAddr>) -> Anteroom {
        let (id, gone) = self.strangers.lock().unwrap_or_else(PoisonError::into_inner).enter(client);
        Anteroom { strangers: Arc::clone(&self.strangers), id, gone }
    }

    /// A seat for a user, which unauthenticated sockets cannot take away.
    pub(super) fn enter(&self, user: Uuid) -> Result<Seat, Close> {
        let place = Arc::clone(&self.all).try_acquire_owned().map_err(|_| Close::Unavailable)?;
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let count = users.entry(user).or_default();
        if *count >= MAX_SOCKETS_PER_USER {
            return Err(Close::TooManySockets);
        }
        *count += 1;
        Ok(Seat { users: Arc::clone(&self.users), user, _place: place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_give_way_to_strangers_first_those_of_one_client() {
        let sockets = Sockets::new(CancellationToken::new());
        let other = sockets.wait(Some([192, 0, 2, 2].into()));
        let of_one: Vec<_> = (0..40).map(|_| sockets.wait(Some([192, 0, 2, 1].into()))).collect();
        let gone = of_one.iter().filter(|place| place.gone.is_cancelled()).count();
        assert_eq!((gone, other.gone.is_cancelled()), (40 - MAX_STRANGERS_PER_CLIENT, false));
        let shared: Vec<_> = (0..MAX_STRANGERS).map(|_| sockets.wait(None)).collect();
        assert!(other.gone.is_cancelled() && shared.iter().all(|place| !place.gone.is_cancelled()));
        let seats: Vec<_> = (0..MAX_SOCKETS).filter_map(|n| sockets.enter(Uuid::from_u128(n as u128)).ok()).collect();
        assert_eq!(seats.len(), MAX_SOCKETS, "whoever signs in has a seat, however many strangers wait");
        drop((of_one, shared, other));
        assert!(sockets.strangers.lock().unwrap().waiting.is_empty());
    }
}
