//! Limits on concurrent reads, applied before the pool, so that nobody holds more of it than a share: a
//! person's reads wait for that person's others, an organization's for its own, and searches, subscriptions,
//! guests and the node itself have separate limits. The wait is short; then the answer is to try again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hookledger_aggregates::{OrganizationId, UserId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a read waits for its turn.
const WAIT: Duration = Duration::from_secs(5);
/// Number of empty queues that are kept.
const MAX_IDLE: usize = 1_000;

/// On whose behalf a read happens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Asker {
    /// The node itself, or several people at once.
    Node,
    /// Somebody without a session, by the client's address.
    Guest(String),
    Person(OrganizationId, UserId),
}

/// The kind of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reading {
    /// By keys and indexes: pages, objects.
    Page,
    /// Scans many rows: text, histograms, rankings.
    Search,
    /// For a subscription.
    Subscription,
}

/// No place became free in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("too many concurrent reads")]
pub struct Busy;

/// A place, held until it is dropped.
pub(super) struct Place {
    _permits: Vec<OwnedSemaphorePermit>,
}

/// The places of a pool.
#[derive(Clone, Debug)]
pub(super) struct Places {
    queues: Arc<Mutex<HashMap<Queue, Arc<Semaphore>>>>,
    connections: usize,
}

/// A group of reads that wait for each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Queue {
    One(Reading, Asker),
    Organization(Reading, OrganizationId),
    Guests,
    All(Reading),
}

impl Places {
    pub(super) fn new(connections: u32) -> Self {
        Self { queues: Arc::default(), connections: usize::try_from(connections).unwrap_or(usize::MAX) }
    }

    /// Waits for a turn: first among the asker's own reads, so that only the next of them waits among
    /// others'.
    pub(super) async fn take(&self, asker: &Asker, reading: Reading) -> Result<Place, Busy> {
        let queues = self.queues_of(asker, reading);
        let in_turn = async {
            let mut permits = Vec::with_capacity(queues.len());
            for queue in queues {
                // The semaphores are never closed.
                permits.push(queue.acquire_owned().await.map_err(|_| Busy)?);
            }
            Ok(Place { _permits: permits })
        };
        tokio::time::timeout(WAIT, in_turn).await.unwrap_or(Err(Busy))
    }

    fn queues_of(&self, asker: &Asker, reading: Reading) -> Vec<Arc<Semaphore>> {
        let one = Queue::One(reading, asker.clone());
        let wanted = match (asker, reading) {
            (Asker::Node, _) => vec![one],
            (Asker::Guest(_), _) => vec![one, Queue::Guests],
            (Asker::Person(home, _), Reading::Page) => vec![one, Queue::Organization(reading, *home)],
            (Asker::Person(home, _), Reading::Search | Reading::Subscription) => {
                vec![one, Queue::Organization(reading, *home), Queue::All(reading)]
            }
        };
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if queues.len() > MAX_IDLE {
            // Everyone who holds or waits for a place holds its queue.
            queues.retain(|_, queue| Arc::strong_count(queue) > 1);
        }
        wanted.into_iter().map(|queue| entry(&mut queues, queue, |queue| self.places_of(queue))).collect()
    }

    /// Number of concurrent reads, from the number of connections: of seven, an organization gets three for
    /// pages, two for searches and one for subscriptions, so that one always remains.
    fn places_of(&self, queue: &Queue) -> usize {
        let share = |sevenths: usize| (self.connections * sevenths / 7).max(1);
        match queue {
            Queue::One(Reading::Page, Asker::Person(..)) | Queue::Organization(Reading::Search, _) => share(2),
            Queue::Organization(Reading::Page, _) | Queue::All(Reading::Search) => share(3),
            Queue::One(..) | Queue::Organization(..) | Queue::Guests | Queue::All(_) => share(1),
        }
    }
}

fn entry<K: Clone + Eq + Hash>(
    queues: &mut HashMap<K, Arc<Semaphore>>,
    key: K,
    places: impl Fn(&K) -> usize,
) -> Arc<Semaphore> {
    let places = places(&key);
    Arc::clone(queues.entry(key).or_insert_with(|| Arc::new(Semaphore::new(places))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(slug: &str, user: u128) -> Asker {
        Asker::Person(OrganizationId::from_slug(slug), UserId::new(uuid::Uuid::from_u128(user)))
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_holds_more_than_a_share_and_others_find_a_place() {
        let places = Places::new(7);
        let mut held = Vec::new();
        for user in 0..20 {
            for _ in 0..20 {
                for reading in [Reading::Page, Reading::Search, Reading::Subscription] {
                    held.extend(places.take(&person("flood", user), reading).await.ok());
                }
            }
        }
        // Three pages, two searches, one subscription: one connection remains, which another organization's
        // page gets at once.
        assert_eq!(held.len(), 6);
        assert!(places.take(&person("quiet", 1), Reading::Page).await.is_ok());
        for address in 0..20 {
            held.extend(places.take(&Asker::Guest(address.to_string()), Reading::Page).await.ok());
        }
        assert_eq!(held.len(), 7);
        assert!(places.take(&Asker::Node, Reading::Page).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_free_once_it_is_given_back() {
        let places = Places::new(2);
        let first = places.take(&person("acme", 1), Reading::Page).await.unwrap();
        assert!(places.take(&person("acme", 1), Reading::Page).await.is_err());
        drop(first);
        assert!(places.take(&person("acme", 1), Reading::Page).await.is_ok());
    }
}
