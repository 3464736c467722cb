//! A customer's URL, parsed once and in a single way, so that the checks and the connection agree on it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderValue, Uri};
use rustls::pki_types::ServerName;
use url::{Host, Url};

use super::address::{self, AllowList, Forbidden};

/// Maximum length of a URL in characters, as given and as normalized.
const MAX_LENGTH: usize = 2_048;

/// The URL of a destination. Cheap to clone.
#[derive(Clone)]
pub struct Target(Arc<Parts>);

struct Parts {
    url: String,
    origin: Arc<str>,
    host: Host<String>,
    port: u16,
    tls: Option<ServerName<'static>>,
    restricted: bool,
    path: Uri,
    authority: HeaderValue,
}

/// The reason why a URL is refused, for the person who entered it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("The URL is longer than 2,048 characters. Use a shorter one.")]
    TooLong,
    #[error("The URL contains spaces or control characters. Remove or percent-encode them.")]
    Characters,
    #[error("This isn't a URL ({0}). Write it like https://example.com/webhooks.")]
    NotAUrl(url::ParseError),
    #[error("The URL must begin with https://.")]
    NotHttps,
    #[error("The URL can't contain a username or password. Send the secret in an extra header instead.")]
    Credentials,
    #[error("The URL can't have a fragment (the part after #). Remove it.")]
    Fragment,
    #[error("The URL's host isn't a valid name. Write it like https://example.com/webhooks.")]
    Host,
    #[error("Port {0} isn't allowed. Use 443, 80, or a port from 1024 up.")]
    Port(u16),
    #[error("{0}")]
    Forbidden(#[from] Forbidden),
}

impl Target {
    /// Parses a URL as browsers do (WHATWG), so that every spelling of an address yields that address, and
    /// checks everything that can be known before its name is resolved.
    pub fn parse(url: &str, allow: &AllowList) -> Result<Self, TargetError> {
        let url = url.trim_ascii();
        if url.len() > MAX_LENGTH {
            return Err(TargetError::TooLong);
        }
        if url.chars().any(|character| character.is_whitespace() || character.is_control()) {
            return Err(TargetError::Characters);
        }
        let mut url = Url::parse(url).map_err(TargetError::NotAUrl)?;
        let secure = match url.scheme() {
            "https" => true,
            "http" if !allow.is_empty() => false,
            _ => return Err(TargetError::NotHttps),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::Credentials);
        }
        if url.fragment().is_some() {
            return Err(TargetError::Fragment);
        }
        drop_root_dot(&mut url)?;
        if url.as_str().len() > MAX_LENGTH {
            return Err(TargetError::TooLong);
        }
        Self::from_checked(&url, secure, allow)
    }

    /// The normalized URL.
    pub fn as_str(&self) -> &str {
        &self.0.url
    }

    fn from_checked(url: &Url, secure: bool, allow: &AllowList) -> Result<Self, TargetError> {
        let host = url.host().ok_or(TargetError::Host)?.to_owned();
        let port = url.port_or_known_default().ok_or(TargetError::Host)?;
        let ordinary_port = matches!(port, 80 | 443 | 1024..);
        if port == 0 || (!ordinary_port && allow.is_empty()) {
            return Err(TargetError::Port(port));
        }
        let restricted = !secure || !ordinary_port;
        let name = match &host {
            Host::Domain(name) => {
                if allow.is_empty() && is_local_name(name) {
                    return Err(Forbidden::NotPublic.into());
                }
                ServerName::try_from(name.clone()).map_err(|_| TargetError::Host)?
            }
            Host::Ipv4(literal) => check(IpAddr::V4(*literal), restricted, allow).map(ServerName::from)?,
            Host::Ipv6(literal) => check(IpAddr::V6(*literal), restricted, allow).map(ServerName::from)?,
        };
        let authority = url.port().map_or_else(|| host.to_string(), |port| format!("{host}:{port}"));
        let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
        Ok(Self(Arc::new(Parts {
            origin: format!("{}://{host}:{port}", url.scheme()).into(),
            path: format!("{}{query}", url.path()).parse().map_err(|_| TargetError::Characters)?,
            authority: authority.parse().map_err(|_| TargetError::Host)?,
            url: url.to_string(),
            tls: secure.then_some(name),
            host,
            port,
            restricted,
        })))
    }

    pub(super) fn host(&self) -> &Host<String> {
        &self.0.host
    }

    pub(super) fn port(&self) -> u16 {
        self.0.port
    }

    /// Scheme, host and port, which connections are shared by.
    pub(super) fn origin(&self) -> &Arc<str> {
        &self.0.origin
    }

    /// The name that the certificate must have, if the connection is encrypted.
    pub(super) fn tls(&self) -> Option<&ServerName<'static>> {
        self.0.tls.as_ref()
    }

    /// Path and query, as sent.
    pub(super) fn path(&self) -> &Uri {
        &self.0.path
    }

    /// The value of the `host` header.
    pub(super) fn authority(&self) -> &HeaderValue {
        &self.0.authority
    }

    /// Checks an address of the host, at every attempt.
    pub(super) fn check(&self, address: IpAddr, allow: &AllowList) -> Result<IpAddr, Forbidden> {
        check(address, self.0.restricted, allow)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.as_str()).finish()
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Target {}

fn check(address: IpAddr, restricted: bool, allow: &AllowList) -> Result<IpAddr, Forbidden> {
    let address = address::check(address, allow)?;
    if restricted && !allow.contains(address) {
        return Err(Forbidden::NotAllowListed);
    }
    Ok(address)
}

/// `example.com.` is `example.com`: neither certificates nor virtual hosts know the final dot.
fn drop_root_dot(url: &mut Url) -> Result<(), TargetError> {
    let Some(Host::Domain(name)) = url.host() else { return Ok(()) };
    if let Some(bare) = name.strip_suffix('.') {
        let bare = bare.to_owned();
        if bare.is_empty() || bare.ends_with('.') {
            return Err(TargetError::Host);
        }
        url.set_host(Some(&bare)).map_err(|_| TargetError::Host)?;
    }
    Ok(())
}

/// Names that never leave a machine or a local network. Safety depends on the check of resolved addresses
/// instead; this only reports the problem when the URL is entered rather than at the first attempt.
fn is_local_name(name: &str) -> bool {
    !name.contains('.') || [".localhost", ".local", ".internal", ".home.arpa"].iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict(url: &str) -> Result<String, TargetError> {
        Target::parse(url, &AllowList::default()).map(|target| target.to_string())
    }

    #[test]
    fn every_spelling_of_a_forbidden_address_is_refused() {
        for host in [
            "127.0.0.1",
            "127.0.0.1.",
            "127.1",
            "127.0.1",
            "0x7f.1",
            "0x7f000001",
            "0X7F.0.0.1",
            "2130706433",
            "017700000001",
            "0177.0.0.1",
            "0177.1",
            "%31%32%37.0.0.1",
            "127%2e0%2e0%2e1",
            "１２７.０.０.１",
            "①②⑦.⓪.⓪.①",
            "127。0。0。1",
            "0",
            "0.0.0.0",
            "10.1",
            "169.254.169.254",
            "0xa9fea9fe",
            "2852039166",
            "0251.0376.0251.0376",
            "[::1]",
            "[::]",
            "[0:0:0:0:0:0:0:1]",
            "[::127.0.0.1]",
            "[::ffff:127.0.0.1]",
            "[::FFFF:7f00:1]",
            "[0:0:0:0:0:ffff:a9fe:a9fe]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b:1::1]",
            "[2002:7f00:1::]",
            "[2001:0:7f00:1::]",
            "[fe80::1]",
            "[fd00::1]",
            "[fec0::1]",
            "[ff02::1]",
            "[fd00:ec2::254]",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "metadata.google.internal",
            "printer.local",
            "intranet",
        ] {
            for url in [format!("https://{host}/"), format!("https://{host}:8443/a?b"), format!("https:\\\\{host}\\")] {
                assert_eq!(strict(&url), Err(TargetError::Forbidden(Forbidden::NotPublic)), "{url}");
            }
        }
    }

    #[test]
    fn urls_are_normalised() {
        for (given, normalised) in [
            ("https://example.com", "https://example.com/"),
            (" https://example.com/a?b=c ", "https://example.com/a?b=c"),
            ("HTTPS://EXAMPLE.com:443/A", "https://example.com/A"),
            ("https://example.com./x", "https://example.com/x"),
            ("https://example.com.:8443/x", "https://example.com:8443/x"),
            ("https://example.com:8443/../x", "https://example.com:8443/x"),
            ("https://example.com:80/", "https://example.com:80/"),
            ("https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC"),
            ("https://0x08080808/", "https://8.8.8.8/"),
            ("https://134744072/", "https://8.8.8.8/"),
            ("https://[2606:4700:0:0::1111]/", "https://[2606:4700::1111]/"),
            ("https://a_b.example.com/", "https://a_b.example.com/"),
            ("https://example.com/a|b[c]?q={}|'\"^`", "https://example.com/a|b[c]?q={}|%27%22^`"),
        ] {
            assert_eq!(strict(given).as_deref(), Ok(normalised), "{given}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let long = format!("https://example.com/{}", "a".repeat(2_048));
        let longer_when_normalised = format!("https://example.com/{}", "ü".repeat(500));
        for (url, error) in [
            ("http://example.com/", TargetError::NotHttps),
            ("ftp://example.com/", TargetError::NotHttps),
            ("file:///etc/passwd", TargetError::NotHttps),
            ("gopher://127.0.0.1:70/_", TargetError::NotHttps),
            ("javascript:alert(1)", TargetError::NotHttps),
            ("https://user:secret@example.com/", TargetError::Credentials),
            ("https://user@example.com/", TargetError::Credentials),
            ("https://8.8.8.8@127.0.0.1/", TargetError::Credentials),
            ("https://example.com/#fragment", TargetError::Fragment),
            ("https://example.com/#", TargetError::Fragment),
            ("https://example.com#@127.0.0.1/", TargetError::Fragment),
            ("https://example.com:22/", TargetError::Port(22)),
            ("https://example.com:0/", TargetError::Port(0)),
            ("https://example.com:1023/", TargetError::Port(1023)),
            ("https://exa\tmple.com/", TargetError::Characters),
            ("https://example.com/\r\nx: y", TargetError::Characters),
            ("https://example.com../", TargetError::Host),
            ("https://./", TargetError::Host),
            ("example.com", TargetError::NotAUrl(url::ParseError::RelativeUrlWithoutBase)),
            ("", TargetError::NotAUrl(url::ParseError::RelativeUrlWithoutBase)),
            ("https://", TargetError::NotAUrl(url::ParseError::EmptyHost)),
            ("https://256.1.1.1/", TargetError::NotAUrl(url::ParseError::InvalidIpv4Address)),
            ("https://[fe80::1%25eth0]/", TargetError::NotAUrl(url::ParseError::InvalidIpv6Address)),
            ("https://example.com:99999/", TargetError::NotAUrl(url::ParseError::InvalidPort)),
            (&long, TargetError::TooLong),
            (&longer_when_normalised, TargetError::TooLong),
        ] {
            assert_eq!(strict(url), Err(error), "{url}");
        }
    }

    #[test]
    fn http_and_low_ports_go_to_allow_listed_addresses_only() {
        let allow: AllowList = "127.0.0.0/8,fd00::/8".parse().unwrap();
        for url in [
            "http://127.0.0.1:9000/",
            "http://[fd00::1]/",
            "https://127.0.0.1:22/",
            "http://sink:8080/",
            "http://example.com/",
            "https://8.8.8.8/",
            "https://example.com:22/",
        ] {
            assert!(Target::parse(url, &allow).is_ok(), "{url}");
        }
        for url in ["http://8.8.8.8/", "https://8.8.8.8:22/", "http://[2606:4700::1111]:8080/"] {
            assert_eq!(Target::parse(url, &allow), Err(Forbidden::NotAllowListed.into()), "{url}");
        }
        for url in ["http://10.0.0.1/", "https://[::1]/", "https://[::ffff:10.0.0.1]/"] {
            assert_eq!(Target::parse(url, &allow), Err(Forbidden::NotPublic.into()), "{url}");
        }
        assert_eq!(Target::parse("https://127.0.0.1:0/", &allow), Err(TargetError::Port(0)));
    }
}
