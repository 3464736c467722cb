//! Name resolution. A seam, so that tests can simulate a DNS with changing answers.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::{Resolver, TokioResolver};

use super::error::Unresolvable;

/// Maximum number of addresses of a name.
pub const MAX_ADDRESSES: usize = 64;
/// How long a whole lookup may take, whatever the servers do.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);
/// Timeout per name server.
const SERVER_LIMIT: Duration = Duration::from_secs(3);
/// How long answers are cached at most; shorter if their records say so.
const REMEMBERED: Duration = Duration::from_secs(60);
const NEGATIVE_REMEMBERED: Duration = Duration::from_secs(5);
const CACHED_NAMES: u64 = 4_096;

pub trait Resolve: Send + Sync + 'static {
    /// All addresses of a fully qualified name (without the final dot), unchecked, at most [`MAX_ADDRESSES`].
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, Unresolvable>>;
}

/// The system's name servers and hosts file, queried by hickory.
pub struct SystemResolver(TokioResolver);

impl SystemResolver {
    pub fn new() -> Result<Self, NetError> {
        let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
            tracing::warn!(error = %error, "no name servers are configured; only destinations given by IP address can be reached");
            let nowhere = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
            Resolver::builder_with_config(nowhere, TokioRuntimeProvider::default())
        });
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Always;
        options.timeout = SERVER_LIMIT;
        options.attempts = 2;
        options.cache_size = CACHED_NAMES;
        options.positive_max_ttl = Some(REMEMBERED);
        options.negative_max_ttl = Some(NEGATIVE_REMEMBERED);
        builder.build().map(Self)
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, Unresolvable>> {
        Box::pin(async move {
            let mut fully_qualified = Name::from_ascii(name).map_err(|_| Unresolvable::NoAddress)?;
            // No search domains: a customer's name must not turn into a name of our own network.
            fully_qualified.set_fqdn(true);
            let found = tokio::time::timeout(LOOKUP_LIMIT, self.0.lookup_ip(fully_qualified))
                .await
                .map_err(|_| Unresolvable::NoAnswer)?
                .map_err(|error| to_unresolvable(name, &error))?;
            let addresses: Vec<_> = found.iter().take(MAX_ADDRESSES + 1).collect();
            if addresses.len() > MAX_ADDRESSES { Err(Unresolvable::TooMany) } else { Ok(addresses) }
        })
    }
}

fn to_unresolvable(name: &str, error: &NetError) -> Unresolvable {
    tracing::debug!(host = name, error = %error, "could not resolve a destination's name");
    if error.is_nx_domain() || error.is_no_records_found() { Unresolvable::NoAddress } else { Unresolvable::NoAnswer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hosts_file_is_read() {
        let resolver = SystemResolver::new().unwrap();
        let addresses = resolver.resolve("localhost").await.unwrap();
        assert!(!addresses.is_empty() && addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
    }
}
