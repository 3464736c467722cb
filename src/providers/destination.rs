//! A destination as a person requests it: checked, and turned into a command.

use std::collections::BTreeMap;

use hookledger_aggregates::Label;
use hookledger_aggregates::destination::{DEFAULT_CONCURRENCY, Destination, DestinationSettings, MAX_NAME};
use hookledger_aggregates::provider::SecretRef;
use http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};

use crate::deliver::is_reserved;
use crate::platform::egress::{AllowList, Target, TargetError};

/// Maximum number of headers of a destination, and bytes of their names and values.
const MAX_HEADERS: usize = 20;
const MAX_HEADER_BYTES: usize = 8 << 10;

/// Why a destination is refused before anything is decided.
#[derive(Debug, thiserror::Error)]
pub enum WishError {
    #[error("This URL belongs to this Hookledger server, so webhooks would go in a circle. Use a different URL.")]
    LeadsBack,
    #[error(transparent)]
    Url(#[from] TargetError),
    #[error("A destination can have at most {MAX_HEADERS} headers.")]
    TooManyHeaders,
    #[error("A header name can have only letters, digits, and hyphens.")]
    HeaderName,
    #[error("Hookledger sets {0} itself. Remove it.")]
    Reserved(HeaderName),
    #[error("The value of {0} must be visible ASCII text.")]
    HeaderValue(HeaderName),
    #[error("The header {0} appears twice.")]
    Twice(HeaderName),
    #[error("Headers can be at most {MAX_HEADER_BYTES} bytes in total.")]
    HeadersTooLong,
}

/// Custom headers of deliveries.
#[derive(Clone, Debug, Default)]
pub enum Headers {
    #[default]
    Unchanged,
    None,
    /// Names, and names with values as JSON.
    These(Vec<String>, SecretString),
}

impl Headers {
    /// Checks names and values.
    pub fn of(headers: impl ExactSizeIterator<Item = (String, String)>) -> Result<Self, WishError> {
        if headers.len() == 0 {
            return Ok(Self::None);
        }
        if headers.len() > MAX_HEADERS {
            return Err(WishError::TooManyHeaders);
        }
        let mut pairs = BTreeMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| WishError::HeaderName)?;
            if is_reserved(&name) {
                return Err(WishError::Reserved(name));
            }
            if HeaderValue::from_str(&value).is_err() {
                return Err(WishError::HeaderValue(name));
            }
            if pairs.insert(name.as_str().to_owned(), value).is_some() {
                return Err(WishError::Twice(name));
            }
        }
        // Strings as keys and values can always be serialized.
        let json = SecretString::from(serde_json::json!(pairs).to_string());
        if json.expose_secret().len() > MAX_HEADER_BYTES {
            return Err(WishError::HeadersTooLong);
        }
        Ok(Self::These(pairs.into_keys().collect(), json))
    }
}

/// A requested destination.
#[derive(Clone, Debug)]
pub struct Wish {
    url: String,
    pub timeout_seconds: Option<u32>,
    pub concurrency: u32,
    pub headers: Headers,
    /// `None`: unchanged, or false for the first destination.
    pub original_signature: Option<bool>,
}

impl Wish {
    /// Only a URL. `base_url` is that of this server.
    pub fn to_url(url: &str, base_url: &str, allowed: &AllowList) -> Result<Self, WishError> {
        if leads_back(base_url, url) {
            return Err(WishError::LeadsBack);
        }
        Ok(Self::to_checked_url(Target::parse(url, allowed)?.as_str().to_owned()))
    }

    /// Only a URL, already checked.
    #[must_use]
    pub fn to_checked_url(url: String) -> Self {
        let (timeout_seconds, original_signature) = (None, None);
        Self { url, timeout_seconds, concurrency: DEFAULT_CONCURRENCY, headers: Headers::Unchanged, original_signature }
    }

    pub(super) fn secret_headers(&self) -> Option<SecretString> {
        match &self.headers {
            Headers::These(_, json) => Some(json.clone()),
            Headers::Unchanged | Headers::None => None,
        }
    }

    /// Its settings; `headers` refers to the values of new headers.
    pub(super) fn settings(&self, current: &Destination, headers: Option<SecretRef>) -> DestinationSettings {
        let known = current.settings();
        let (header_names, headers) = match &self.headers {
            Headers::None => (Vec::new(), None),
            Headers::Unchanged => (
                known.map(|known| known.header_names.clone()).unwrap_or_default(),
                known.and_then(|known| known.headers),
            ),
            Headers::These(names, _) => (names.clone(), headers),
        };
        DestinationSettings {
            name: known.map_or_else(|| name(&self.url), |known| known.name.clone()),
            url: self.url.clone(),
            timeout_seconds: self.timeout_seconds,
            concurrency: self.concurrency,
            header_names,
            headers,
            original_signature: self
                .original_signature
                .unwrap_or_else(|| known.is_some_and(|known| known.original_signature)),
        }
    }
}

/// The name of a destination that nobody named: its host.
fn name(url: &str) -> Label {
    let host = url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    Label::cut(host.as_deref().unwrap_or("destination"), MAX_NAME)
}

/// Whether a URL is a receiving URL of this server. The hop count detects loops through other names of the
/// server.
fn leads_back(base_url: &str, url: &str) -> bool {
    let (Ok(base), Ok(url)) = (url::Url::parse(base_url), url::Url::parse(url)) else { return false };
    let same_place = base.host_str() == url.host_str() && base.port_or_known_default() == url.port_or_known_default();
    let below = url.path().strip_prefix(base.path().trim_end_matches('/'));
    same_place && below.is_some_and(|path| path.starts_with("/webhooks/"))
}
