//! Connections: their number, their origin, proxies that speak for others, and which connections give way
//! when there are too many.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http::HeaderMap;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use super::forwarded;

/// Counts connections, in total and by client. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clients {
    counts: Arc<Mutex<Counts>>,
    max: usize,
    max_per_client: usize,
    proxies: Arc<[IpNet]>,
    since: Instant,
}

#[derive(Debug, Default)]
struct Counts {
    next: u64,
    connections: HashMap<u64, Arc<Seat>>,
    by_client: HashMap<IpAddr, usize>,
}

/// The address of the client.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress {
    pub(super) address: IpAddr,
    /// Whether it is a proxy's, which speaks for many.
    pub(super) is_shared: bool,
}

impl ClientAddress {
    /// The key of a client's share: one IPv4 address, or a whole /64 of IPv6.
    pub(super) fn share(self) -> Option<IpAddr> {
        (!self.is_shared).then(|| network(self.address))
    }
}

/// A connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    counts: Arc<Mutex<Counts>>,
    client: Option<IpAddr>,
    id: u64,
    pub(super) seat: Arc<Seat>,
}

/// State of a connection.
#[derive(Debug)]
pub(super) struct Seat {
    since: Instant,
    /// Since when the server has been waiting for the client, in microseconds after `since`; 0 if it is not.
    /// A connection that was just accepted, or has unread data, does not count: on a busy machine it would
    /// give way before anybody looked at it.
    waits: AtomicU64,
    /// Its request is complete and not answered yet, so the server does not wait for the client.
    busy: AtomicBool,
    /// Cancelled when another connection takes its place.
    gone: CancellationToken,
}

impl Seat {
    /// Notes progress on the connection.
    pub(super) fn moved(&self) {
        self.waits.store(0, Ordering::Relaxed);
    }

    /// Notes that the server waits for the client to send, or to take what it is sent.
    pub(super) fn waits(&self) {
        if self.waits.load(Ordering::Relaxed) == 0 {
            let now = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.waits.store(now.max(1), Ordering::Relaxed);
        }
    }

    pub(super) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
        self.moved();
    }

    /// Since when it may give way; `None` if it may not.
    fn gives_way_since(&self) -> Option<u64> {
        let waits = self.waits.load(Ordering::Relaxed);
        (waits > 0 && !self.busy.load(Ordering::Relaxed)).then_some(waits)
    }

    /// Resolves when another connection takes its place.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.connections.remove(&self.id);
        let Some(client) = self.client else { return };
        if let Some(count) = counts.by_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                counts.by_client.remove(&client);
            }
        }
    }
}

impl Counts {
    /// Ends the connection whose client has been waited for the longest, if there is one.
    fn make_way(&mut self) -> bool {
        let waiting = self.connections.iter().filter_map(|(id, seat)| Some((seat.gives_way_since()?, *id)));
        let Some((_, id)) = waiting.min() else { return false };
        if let Some(seat) = self.connections.remove(&id) {
            seat.gone.cancel();
        }
        metrics::counter!("hookledger_connections_given_way_total").increment(1);
        true
    }
}

impl Clients {
    #[must_use]
    pub fn new(max: usize, max_per_client: usize, proxies: Vec<IpNet>) -> Self {
        Self { counts: Arc::default(), max, max_per_client, proxies: proxies.into(), since: Instant::now() }
    }

    /// A place for a connection from that address, if there is one.
    pub(super) fn admit(&self, peer: IpAddr) -> Option<Place> {
        let peer = peer.to_canonical();
        let client = (!self.is_shared(peer)).then(|| network(peer));
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if client.is_some_and(|client| counts.by_client.get(&client).is_some_and(|count| *count >= self.max_per_client))
        {
            return None;
        }
        if counts.connections.len() >= self.max && !counts.make_way() {
            return None;
        }
        if let Some(client) = client {
            *counts.by_client.entry(client).or_default() += 1;
        }
        let seat = Arc::new(Seat {
            since: self.since,
            waits: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            gone: CancellationToken::new(),
        });
        let id = counts.next;
        counts.next += 1;
        counts.connections.insert(id, Arc::clone(&seat));
        Some(Place { counts: Arc::clone(&self.counts), client, id, seat })
    }

    /// Whether all places are taken, regardless of the client.
    pub(super) fn are_full(&self) -> bool {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).connections.len() >= self.max
    }

    /// The sender of a request: the peer, or the last address named by a trusted proxy that is not a proxy
    /// itself.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let mut client = peer.to_canonical();
        if self.is_proxy(client) {
            for named in forwarded::named(headers) {
                let Some(address) = named else { break };
                client = address.to_canonical();
                if !self.is_proxy(client) {
                    break;
                }
            }
        }
        ClientAddress { address: client, is_shared: self.is_shared(client) }
    }

    /// A proxy speaks for many; on this machine it needs no setting.
    fn is_shared(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.is_proxy(address)
    }

    fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|range| range.contains(&address))
    }
}

/// One client has one IPv4 address, or a whole /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_client_does_not_take_all_places() {
        let clients = Clients::new(5, 2, vec!["10.0.0.0/8".parse().unwrap()]);
        let taken: Vec<_> = (0..3).filter_map(|_| clients.admit(ip("203.0.113.1"))).collect();
        assert_eq!(taken.len(), 2);
        let of_one_network: Vec<_> =
            ["2001:db8::1", "2001:db8::2"].into_iter().filter_map(|a| clients.admit(ip(a))).collect();
        assert_eq!(of_one_network.len(), 2);
        assert!(clients.admit(ip("2001:db8::3")).is_none());
        // A proxy is limited only by the total.
        let proxy = clients.admit(ip("10.1.2.3")).unwrap();
        taken.iter().chain(&of_one_network).chain([&proxy]).for_each(|place| place.seat.set_busy(true));
        assert!(clients.admit(ip("10.1.2.3")).is_none());
        drop((taken, proxy));
        assert!(clients.admit(ip("::ffff:203.0.113.1")).is_some());
    }

    #[test]
    fn whoever_has_been_still_the_longest_gives_way() {
        let clients = Clients::new(3, 1_024, Vec::new());
        let places: Vec<_> = (0..3).map(|_| clients.admit(ip("127.0.0.1")).unwrap()).collect();
        assert!(clients.admit(ip("127.0.0.1")).is_none(), "nobody has looked at any of them yet");
        for place in &places {
            place.seat.waits();
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        places[0].seat.set_busy(true);
        places[1].seat.moved();
        places[1].seat.waits();
        let newcomer = clients.admit(ip("127.0.0.1")).unwrap();
        let gone: Vec<bool> = places.iter().map(|place| place.seat.gone.is_cancelled()).collect();
        assert_eq!(gone, [false, false, true]);
        newcomer.seat.set_busy(true);
        places[1].seat.set_busy(true);
        assert!(clients.admit(ip("127.0.0.1")).is_none(), "nobody who is served gives way");
        drop(places);
        assert!(clients.admit(ip("127.0.0.1")).is_some());
    }

    #[test]
    fn only_trusted_proxies_name_somebody_else() {
        let clients = Clients::new(1, 1, vec!["10.0.0.0/8".parse().unwrap()]);
        let client = |peer: &str, forwarded: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append("x-forwarded-for", value.parse().unwrap());
            }
            clients.client(ip(peer), &headers).address.to_string()
        };
        assert_eq!(client("203.0.113.1", &["198.51.100.7"]), "203.0.113.1");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "198.51.100.7:51334, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["\"[2001:db8::17]:443\""]), "2001:db8::17");
        assert_eq!(client("10.0.0.1", &["198.51.100.7, nonsense"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        let mut headers = HeaderMap::new();
        headers.append("forwarded", "for=198.51.100.7;proto=https".parse().unwrap());
        assert_eq!(clients.client(ip("10.0.0.1"), &headers).address, ip("198.51.100.7"));
        assert_eq!(clients.client(ip("203.0.113.1"), &headers).address, ip("203.0.113.1"));
    }
}
