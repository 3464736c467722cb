//! Addresses that a delivery may go to: globally routable unicast, and those that the deployment allows.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// IPv4 that is not globally routable unicast (IANA's special-purpose registry).
const SPECIAL_V4: [Ipv4Net; 15] = [
    v4([0, 0, 0, 0], 8),       // "this network"
    v4([10, 0, 0, 0], 8),      // private
    v4([100, 64, 0, 0], 10),   // carrier-grade NAT
    v4([127, 0, 0, 0], 8),     // loopback
    v4([169, 254, 0, 0], 16),  // link-local, clouds' metadata
    v4([172, 16, 0, 0], 12),   // private
    v4([192, 0, 0, 0], 24),    // protocol assignments
    v4([192, 0, 2, 0], 24),    // documentation
    v4([192, 88, 99, 0], 24),  // 6to4 relays
    v4([192, 168, 0, 0], 16),  // private
    v4([198, 18, 0, 0], 15),   // benchmarks
    v4([198, 51, 100, 0], 24), // documentation
    v4([203, 0, 113, 0], 24),  // documentation
    v4([224, 0, 0, 0], 4),     // multicast
    v4([240, 0, 0, 0], 4),     // reserved, broadcast
];

/// The only block of global unicast in IPv6. Outside of it are loopback, IPv4-compatible and IPv4-mapped,
/// NAT64, ULA, link-local, site-local and multicast.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0], 3);
/// Ranges within [`GLOBAL_V6`] that are not global unicast, or that embed an IPv4 address that a relay would
/// unpack.
const SPECIAL_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0], 23),     // protocol assignments: Teredo, ORCHID, benchmarks, AMT
    v6([0x2001, 0xdb8], 32), // documentation
    v6([0x2002, 0], 16),     // 6to4
    v6([0x3fff, 0], 20),     // documentation
];

/// Why an address is refused. Reveals neither the address nor what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    #[error(
        "The destination resolves to a private address. Use a host that is reachable from the internet, or ask the \
         platform operator to add its range to HOOKLEDGER_EGRESS_ALLOW_CIDRS."
    )]
    NotPublic,
    #[error(
        "Plain http, and ports below 1024 other than 80 and 443, work only for addresses that the platform operator \
         allows in HOOKLEDGER_EGRESS_ALLOW_CIDRS. Use https on port 443."
    )]
    NotAllowListed,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllowListError {
    #[error("{0:?} is not an address range. Use a form like 10.1.0.0/16 or fd00:1::/32, separated by commas")]
    NotARange(String),
    #[error("{0:?} is an IPv4 range in IPv6 notation. Use the IPv4 notation")]
    Mapped(String),
}

/// Non-public ranges that deliveries may go to. Empty unless the operator configures it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList(Arc<[IpNet]>);

impl AllowList {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a range contains this address (in its [canonical](IpAddr::to_canonical) form).
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|range| range.contains(&address))
    }
}

impl FromStr for AllowList {
    type Err = AllowListError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(parse_range)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            write!(f, "{}{range}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Returns the canonical form of an address that may be connected to.
///
/// # Errors
/// [`Forbidden::NotPublic`] if it is neither globally routable unicast nor in the allow-list.
pub fn check(address: IpAddr, allow: &AllowList) -> Result<IpAddr, Forbidden> {
    let address = address.to_canonical();
    if is_public(address) || allow.contains(address) { Ok(address) } else { Err(Forbidden::NotPublic) }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_V4.iter().any(|range| range.contains(&address)),
        IpAddr::V6(address) => GLOBAL_V6.contains(&address) && !SPECIAL_V6.iter().any(|range| range.contains(&address)),
    }
}

fn parse_range(text: &str) -> Result<IpNet, AllowListError> {
    let range = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| AllowListError::NotARange(text.to_owned()))?;
    match range {
        IpNet::V6(range) if range.addr().to_ipv4_mapped().is_some() && range.prefix_len() >= 96 => {
            Err(AllowListError::Mapped(text.to_owned()))
        }
        range => Ok(range.trunc()),
    }
}

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b]: [u16; 2], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORBIDDEN: &[&str] = &[
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "169.254.170.2",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.7",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        // loopback, unspecified, IPv4-compatible, IPv4-mapped, IPv4-translated
        "::",
        "::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "::ffff:169.254.169.254",
        "::ffff:0:127.0.0.1",
        "::ffff:0:8.8.8.8",
        // NAT64, discard, SRv6
        "64:ff9b::127.0.0.1",
        "64:ff9b::8.8.8.8",
        "64:ff9b:1::a00:1",
        "100::1",
        "100:0:0:1::1",
        "5f00::1",
        // Teredo, benchmark, ORCHID, ORCHIDv2, the rest of 2001::/23
        "2001::1",
        "2001:0:7f00:1::",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:1ff::1",
        // documentation, 6to4
        "2001:db8::1",
        "3fff::1",
        "3fff:fff::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2002:808:808::1",
        // ULA, link-local, site-local, multicast, unassigned
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "4000::1",
        "1::1",
        "e000::1",
    ];

    const PUBLIC: &[&str] = &[
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.1",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.1",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "203.0.112.1",
        "223.255.255.255",
        "::ffff:8.8.8.8",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2001:db7::1",
        "2001:db9::1",
        "2003::1",
        "2606:4700::1111",
        "2a00:1450::1",
        "3ffe::1",
        "3fff:1000::1",
    ];

    #[test]
    fn only_globally_routable_unicast_is_public() {
        for text in FORBIDDEN {
            let address = text.parse().unwrap();
            assert_eq!(check(address, &AllowList::default()), Err(Forbidden::NotPublic), "{text}");
        }
        for text in PUBLIC {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(check(address, &AllowList::default()), Ok(address.to_canonical()), "{text}");
        }
    }

    #[test]
    fn the_allow_list_opens_what_it_names_and_nothing_else() {
        let allow: AllowList = "10.1.0.0/16, 127.0.0.1,fd00:1::/32".parse().unwrap();
        for text in ["10.1.2.3", "127.0.0.1", "::ffff:10.1.2.3", "fd00:1::9", "8.8.8.8"] {
            assert!(check(text.parse().unwrap(), &allow).is_ok(), "{text}");
        }
        // An embedding is not the address that it embeds.
        for text in ["10.2.0.1", "127.0.0.2", "fd00:2::1", "::10.1.2.3", "64:ff9b::10.1.2.3", "2002:a01:203::"] {
            assert!(check(text.parse().unwrap(), &allow).is_err(), "{text}");
        }
    }

    #[test]
    fn an_allow_list_is_read_and_written() {
        assert!("".parse::<AllowList>().unwrap().is_empty());
        assert!(" , ".parse::<AllowList>().unwrap().is_empty());
        assert_eq!("10.1.2.3/8,::1".parse::<AllowList>().unwrap().to_string(), "10.0.0.0/8,::1/128");
        for wrong in ["localhost", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/8;::1", "*"] {
            assert!(matches!(wrong.parse::<AllowList>(), Err(AllowListError::NotARange(_))), "{wrong}");
        }
        for wrong in ["::ffff:10.0.0.0/104", "::ffff:10.0.0.1"] {
            assert!(matches!(wrong.parse::<AllowList>(), Err(AllowListError::Mapped(_))), "{wrong}");
        }
    }
}
