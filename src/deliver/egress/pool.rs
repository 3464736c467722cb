//! Idle connections, kept for the next webhook to the same place.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::connect::Connection;

/// How long a connection stays idle. Common servers close after 60 s or more; closing first avoids their race.
const IDLE: Duration = Duration::from_secs(20);
/// How often expired ones are closed.
const SWEEP: Duration = Duration::from_secs(5);
const IDLE_PER_KEY: usize = 128;
const IDLE_TOTAL: usize = 1_024;

/// Only the same scheme, host, port and checked address share connections.
#[derive(PartialEq, Eq, Hash, Clone)]
struct Key {
    origin: Arc<str>,
    address: IpAddr,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

#[derive(Default)]
struct Shelves {
    /// The longest idle one first.
    by_key: HashMap<Key, VecDeque<Idle>>,
    count: usize,
}

#[derive(Default)]
pub struct Pool(Mutex<Shelves>);

impl Pool {
    /// A pool and the task that closes what expired, which ends with the pool.
    pub fn start() -> Arc<Self> {
        let pool = Arc::new(Self::default());
        let weak = Arc::downgrade(&pool);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(pool) = weak.upgrade() else { break };
                pool.sweep();
            }
        });
        pool
    }

    /// A connection that is ready for a request, the most recently used one first.
    pub fn take(&self, origin: &Arc<str>, addresses: &[IpAddr]) -> Option<Connection> {
        let mut idle = self.lock();
        addresses.iter().find_map(|address| idle.take(&Key { origin: Arc::clone(origin), address: *address }))
    }

    pub fn put(&self, origin: &Arc<str>, connection: Connection) {
        let key = Key { origin: Arc::clone(origin), address: connection.address };
        self.lock().put(key, Idle { connection, since: Instant::now() });
    }

    /// Closes what expired or was closed by the other side.
    pub fn sweep(&self) {
        self.lock().sweep();
    }

    pub fn idle(&self) -> usize {
        self.lock().count
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelves {
    fn take(&mut self, key: &Key) -> Option<Connection> {
        let queue = self.by_key.get_mut(key)?;
        while let Some(idle) = queue.pop_back() {
            self.count -= 1;
            if idle.connection.sender.is_ready() && idle.since.elapsed() < IDLE {
                return Some(idle.connection);
            }
        }
        None
    }

    fn put(&mut self, key: Key, idle: Idle) {
        if self.count >= IDLE_TOTAL {
            self.drop_oldest();
        }
        let queue = self.by_key.entry(key).or_default();
        if queue.len() >= IDLE_PER_KEY {
            queue.pop_front();
            self.count -= 1;
        }
        queue.push_back(idle);
        self.count += 1;
    }

    fn drop_oldest(&mut self) {
        let oldest = self.by_key.values_mut().filter(|queue| !queue.is_empty()).min_by_key(|queue| queue[0].since);
        if oldest.and_then(VecDeque::pop_front).is_some() {
            self.count -= 1;
        }
    }

    fn sweep(&mut self) {
        self.by_key.retain(|_, queue| {
            queue.retain(|idle| !idle.connection.sender.is_closed() && idle.since.elapsed() < IDLE);
            !queue.is_empty()
        });
        self.count = self.by_key.values().map(VecDeque::len).sum();
    }
}
