//! Who is connected: how many connections there are, from where, and who speaks for somebody else.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use ipnet::IpNet;

/// Counts connections, altogether and by client. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clients {
    counts: Arc<Mutex<Counts>>,
    max: usize,
    max_per_client: usize,
    proxies: Arc<[IpNet]>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    counts: Arc<Mutex<Counts>>,
    client: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        let Some(client) = self.client else { return };
        if let Some(count) = counts.by_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                counts.by_client.remove(&client);
            }
        }
    }
}

impl Clients {
    #[must_use]
    pub fn new(max: usize, max_per_client: usize, proxies: Vec<IpNet>) -> Self {
        Self { counts: Arc::default(), max, max_per_client, proxies: proxies.into() }
    }

    /// A place for a connection from that address, if there is one.
    pub(super) fn admit(&self, peer: IpAddr) -> Option<Place> {
        let peer = peer.to_canonical();
        // A proxy speaks for many; on this machine it needs no setting.
        let client = (!peer.is_loopback() && !self.is_proxy(peer)).then(|| network(peer));
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= self.max {
            return None;
        }
        if let Some(client) = client {
            let count = counts.by_client.entry(client).or_default();
            if *count >= self.max_per_client {
                return None;
            }
            *count += 1;
        }
        counts.all += 1;
        Some(Place { counts: Arc::clone(&self.counts), client })
    }

    /// Who sent a request: the peer, or whom a trusted proxy names last that is not a proxy itself.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let named = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let named: Vec<&str> = named.flat_map(|value| value.split(',')).map(str::trim).collect();
        for name in named.into_iter().rev() {
            if !self.is_proxy(client) {
                break;
            }
            let Ok(address) = name.parse::<IpAddr>() else { break };
            client = address.to_canonical();
        }
        client
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
        // A proxy is bounded by all places alone.
        let proxy = clients.admit(ip("10.1.2.3")).unwrap();
        assert!(clients.admit(ip("10.1.2.3")).is_none());
        drop((taken, proxy));
        assert!(clients.admit(ip("::ffff:203.0.113.1")).is_some());
    }

    #[test]
    fn only_trusted_proxies_name_somebody_else() {
        let clients = Clients::new(1, 1, vec!["10.0.0.0/8".parse().unwrap()]);
        let client = |peer: &str, forwarded: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append("x-forwarded-for", value.parse().unwrap());
            }
            clients.client(ip(peer), &headers).to_string()
        };
        assert_eq!(client("203.0.113.1", &["198.51.100.7"]), "203.0.113.1");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["nonsense"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }
}
