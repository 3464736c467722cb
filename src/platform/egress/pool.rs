//! Idle connections, kept for the next webhook to the same destination.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use http::header::HeaderName;
use tokio::time::Instant;

use super::connect::Connection;

/// Idle limit if the destination does not state one. Node.js closes after 5 s, others later; closing first
/// avoids sending into a connection that is being closed.
const IDLE: Duration = Duration::from_secs(4);
/// Maximum idle time, whatever the destination states.
const MAX_IDLE: Duration = Duration::from_secs(20);
/// How long before the stated limit a connection is closed, to allow for the duration of a request.
const MARGIN: Duration = Duration::from_secs(1);
/// Interval of closing expired connections.
const SWEEP: Duration = Duration::from_secs(1);
const IDLE_PER_KEY: usize = 128;
const IDLE_TOTAL: usize = 1_024;

/// Connections are shared only within the same scheme, host, port and checked address.
#[derive(PartialEq, Eq, Hash, Clone)]
struct Key {
    origin: Arc<str>,
    address: IpAddr,
}

struct Idle {
    connection: Connection,
    since: Instant,
    limit: Duration,
}

impl Idle {
    fn is_expired(&self) -> bool {
        self.since.elapsed() >= self.limit
    }
}

/// How long a connection may stay idle after an answer with these headers.
pub fn idle_limit(headers: &HeaderMap) -> Duration {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    let values = headers.get_all(KEEP_ALIVE).into_iter().filter_map(|value| value.to_str().ok());
    let promised = values.flat_map(|value| value.split(',')).filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_timeout = name.trim().eq_ignore_ascii_case("timeout");
        value.trim().trim_matches('"').parse().ok().filter(|_| is_timeout).map(Duration::from_secs)
    });
    promised.min().map_or(IDLE, |promised| promised.saturating_sub(MARGIN).min(MAX_IDLE))
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
    /// A pool, with a task that closes expired connections and ends with the pool.
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

    /// Keeps a connection for `limit`, the result of [`idle_limit`].
    pub fn put(&self, origin: &Arc<str>, connection: Connection, limit: Duration) {
        if limit.is_zero() {
            return;
        }
        let key = Key { origin: Arc::clone(origin), address: connection.address };
        self.lock().put(key, Idle { connection, since: Instant::now(), limit });
    }

    /// Closes connections that expired or that the other side closed.
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
            if idle.connection.sender.is_ready() && !idle.is_expired() {
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
            queue.retain(|idle| !idle.connection.sender.is_closed() && !idle.is_expired());
            !queue.is_empty()
        });
        self.count = self.by_key.values().map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_let_go_before_the_destination_closes_it() {
        let limit = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("keep-alive", line.parse().unwrap());
            }
            idle_limit(&headers).as_secs()
        };
        assert_eq!(limit(&[]), 4);
        for (lines, seconds) in [
            (&["timeout=5"][..], 4),
            (&["timeout=2, max=100"], 1),
            (&["max=100,Timeout = \"3\""], 2),
            (&["timeout=60"], 20),
            (&["timeout=60", "timeout=3"], 2),
            (&["timeout=1"], 0),
            (&["timeout=0"], 0),
            (&["timeout=soon", "timeout", "max=1"], 4),
        ] {
            assert_eq!(limit(lines), seconds, "{lines:?}");
        }
    }
}
