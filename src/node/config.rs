//! Configuration: environment variables, or the same names in lower case in a TOML file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use chrono::Duration;
use clap::Args;
use ipnet::IpNet;
use lettre::message::Mailbox;
use secrecy::SecretString;

use crate::platform::egress::AllowList;
use crate::platform::store::Connections;

/// Settings that every command needs to find its store and its keys.
#[derive(Args, Clone, Debug)]
pub struct StoreSettings {
    /// URL of a PostgreSQL server. If unset, an embedded server runs under the data directory.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<SecretString>,

    /// Maximum PostgreSQL connections per node, at least 16. With the default, two nodes and an operator fit
    /// into the 100 connections that PostgreSQL allows by default.
    #[arg(long, env = "HOOKLEDGER_DATABASE_CONNECTIONS", default_value = "27", value_name = "N")]
    pub database_connections: Connections,

    /// Directory for the embedded store and generated keys.
    #[arg(long, env = "HOOKLEDGER_DATA_DIR", default_value = "./data", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Keys that encrypt secrets: `id:base64(32 bytes)`, comma-separated. The first key encrypts. Generated
    /// with the embedded store; required with `DATABASE_URL`.
    #[arg(long, env = "HOOKLEDGER_MASTER_KEYS", hide_env_values = true, value_name = "KEYS")]
    pub master_keys: Option<SecretString>,

    /// Keys that sign sessions, in the same format. The first key signs.
    #[arg(long, env = "HOOKLEDGER_JWT_KEYS", hide_env_values = true, value_name = "KEYS")]
    pub jwt_keys: Option<SecretString>,

    /// Email address of the super admin, created at the first start.
    #[arg(long, env = "HOOKLEDGER_SUPER_ADMIN_EMAIL", default_value = "admin@localhost", value_name = "EMAIL")]
    pub super_admin_email: String,

    /// Public URL of this server, for users and providers.
    #[arg(long, env = "HOOKLEDGER_BASE_URL", default_value = "http://localhost:8080", value_name = "URL")]
    pub base_url: BaseUrl,

    /// How long a sign-in link is valid.
    #[arg(long, env = "HOOKLEDGER_MAGIC_LINK_TTL", default_value = "15m", value_name = "TIME")]
    pub magic_link_ttl: Span,
}

/// Additional settings of `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeSettings {
    #[command(flatten)]
    pub store: StoreSettings,

    /// Address to listen on.
    #[arg(long, env = "HOOKLEDGER_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,

    /// Separate address for /metrics and for /readyz with its reasons. If unset, both are served at the main
    /// address if it and the base URL are local. Otherwise /readyz shows only its status, and /metrics is off.
    #[arg(long, env = "HOOKLEDGER_OPERATIONS_LISTEN", value_name = "ADDRESS")]
    pub operations_listen: Option<SocketAddr>,

    /// Maximum size of a webhook body.
    #[arg(long, env = "HOOKLEDGER_MAX_BODY", default_value = "25MiB", value_name = "SIZE")]
    pub max_body: Size,

    /// Memory for the bodies of all requests in flight; beyond it, requests get 503. A quarter is reserved for
    /// webhooks of up to 64 KiB and an eighth for other requests. No client or endpoint gets more than half of a
    /// part; the request idle the longest is dropped first.
    #[arg(long, env = "HOOKLEDGER_BODY_BUDGET", default_value = "128MiB", value_name = "SIZE")]
    pub body_budget: Size,

    /// Maximum concurrent connections. Beyond it, the connections idle the longest are closed; if none is idle,
    /// new ones get 503.
    #[arg(long, env = "HOOKLEDGER_MAX_CONNECTIONS", default_value = "4096", value_name = "N")]
    pub max_connections: usize,

    /// Maximum concurrent connections per client address (per /64 for IPv6). Local connections and trusted
    /// proxies are not counted.
    #[arg(long, env = "HOOKLEDGER_MAX_CONNECTIONS_PER_CLIENT", default_value = "1024", value_name = "N")]
    pub max_connections_per_client: usize,

    /// Address ranges of trusted proxies, comma-separated, such as 10.0.0.0/8. Their X-Forwarded-For header is
    /// used, or Forwarded if it is missing. A proxy that sets only Forwarded must remove X-Forwarded-For.
    #[arg(long, env = "HOOKLEDGER_TRUSTED_PROXIES", value_delimiter = ',', value_name = "CIDRS")]
    pub trusted_proxies: Vec<IpNet>,

    /// Directory of PayPal's certificates. Each file is named after the last part of its URL, plus `.pem`, and
    /// ends with the intermediate certificates. If set, nothing is fetched from PayPal.
    #[arg(long, env = "HOOKLEDGER_PAYPAL_CERT_DIR", value_name = "DIR")]
    pub paypal_cert_dir: Option<PathBuf>,

    /// PEM file of trusted roots for PayPal's certificates. If unset, the public roots.
    #[arg(long, env = "HOOKLEDGER_PAYPAL_TRUST_ROOTS", value_name = "FILE")]
    pub paypal_trust_roots: Option<PathBuf>,

    /// Maximum age of a PayPal webhook. PayPal retries for days.
    #[arg(long, env = "HOOKLEDGER_PAYPAL_MAX_AGE", default_value = "3d", value_name = "TIME")]
    pub paypal_max_age: Span,
    /// Delays before retries 1, 2, 3, and so on, comma-separated. One retry per delay.
    #[arg(long, env = "HOOKLEDGER_RETRY_DELAYS", default_value = "1m,5m,15m", value_name = "TIMES")]
    pub retry_delays: Delays,

    /// How long a webhook can wait for a worker before the attempt fails.
    #[arg(long, env = "HOOKLEDGER_PENDING_TIMEOUT", default_value = "30s", value_name = "TIME")]
    pub pending_timeout: Span,

    /// Default timeout for a destination to respond.
    #[arg(long, env = "HOOKLEDGER_ATTEMPT_TIMEOUT", default_value = "30s", value_name = "TIME")]
    pub attempt_timeout: Span,

    /// How long bodies, headers, and responses from destinations are kept. Their events stay, and unfinished
    /// webhooks keep their bodies.
    #[arg(long, env = "HOOKLEDGER_RETENTION_BODIES", default_value = "90d", value_name = "TIME")]
    pub retention_bodies: Span,

    /// Private address ranges that destinations can be in, comma-separated. For these, http and any port are
    /// also allowed.
    #[arg(
        long,
        env = "HOOKLEDGER_EGRESS_ALLOW_CIDRS",
        default_value = "",
        hide_default_value = true,
        value_name = "CIDRS"
    )]
    pub egress_allow_cidrs: AllowList,

    /// How long a session lasts.
    #[arg(long, env = "HOOKLEDGER_SESSION_TTL", default_value = "12h", value_name = "TIME")]
    pub session_ttl: Span,

    /// Mail server: `smtps://user:password@host` or `smtp://…?tls=required`. If unset, sign-in links are
    /// printed in the server's log.
    #[arg(long, env = "HOOKLEDGER_SMTP_URL", hide_env_values = true, value_name = "URL")]
    pub smtp_url: Option<SecretString>,

    /// Sender address of emails.
    #[arg(long, env = "HOOKLEDGER_MAIL_FROM", default_value = "hookledger@localhost", value_name = "ADDRESS")]
    pub mail_from: Mailbox,

    /// Directory to write emails to as files, instead of sending them.
    #[arg(long, env = "HOOKLEDGER_MAIL_DIR", value_name = "DIR")]
    pub mail_dir: Option<PathBuf>,

    /// EventStoreDB to mirror the log to (`esdb://…`), with one stream per partition. Requires a binary built
    /// with the feature `eventstore`.
    #[arg(long, env = "HOOKLEDGER_EVENTSTORE_URL", hide_env_values = true, value_name = "URL")]
    pub eventstore_url: Option<SecretString>,

    /// Whether to accept GraphQL queries over GET.
    #[arg(long, env = "HOOKLEDGER_GRAPHQL_GET", default_value = "false", action = clap::ArgAction::Set, value_name = "BOOL")]
    pub graphql_get: bool,

    /// Whether to run the public demo: an organization `demo` that anyone can send signed samples to, with
    /// rate limits.
    #[arg(long, env = "HOOKLEDGER_DEMO", default_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    pub demo: bool,

    /// How often new checkpoints of the ledger are signed.
    #[arg(long, env = "HOOKLEDGER_CHECKPOINT_INTERVAL", default_value = "5s", value_name = "TIME")]
    pub checkpoint_interval: Span,

    /// File to append every checkpoint of the ledger to; `none` for no file. If unset, `checkpoints.jsonl` in
    /// the data directory.
    #[arg(long, env = "HOOKLEDGER_CHECKPOINT_FILE", value_name = "FILE")]
    pub checkpoint_file: Option<PathBuf>,

    /// URL to send every checkpoint of the ledger to (add-checkpoint of C2SP tlog-witness).
    #[arg(long, env = "HOOKLEDGER_WITNESS_URL", value_name = "URL")]
    pub witness_url: Option<String>,

    /// Number of threads that serve requests. If unset, one per core.
    #[arg(long, env = "HOOKLEDGER_THREADS", value_name = "N")]
    pub threads: Option<usize>,
}

impl ServeSettings {
    /// Whether only this machine is meant to reach the server.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let base_url: Option<http::Uri> = self.store.base_url.0.parse().ok();
        let host = base_url.as_ref().and_then(http::Uri::host).unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        self.listen.ip().is_loopback() && (host == "localhost" || address.is_ok_and(|address| address.is_loopback()))
    }

    /// File that checkpoints are appended to, if any.
    #[must_use]
    pub fn checkpoint_file(&self) -> Option<PathBuf> {
        self.store.checkpoint_file(self.checkpoint_file.as_deref())
    }
}

impl StoreSettings {
    /// File that checkpoints are appended to, if any; `set` is the value of the setting.
    #[must_use]
    pub fn checkpoint_file(&self, set: Option<&Path>) -> Option<PathBuf> {
        match set {
            None => Some(self.data_dir.join("checkpoints.jsonl")),
            Some(none) if none.as_os_str() == "none" => None,
            Some(path) => Some(path.to_owned()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Toml { path: PathBuf, source: toml::de::Error },
    #[error("{path}: {key} must be a string, a number or a boolean")]
    Value { path: PathBuf, key: String },
    #[error("{path}: unknown setting {key}. Settings have the names of the environment variables in lower case")]
    Unknown { path: PathBuf, key: String },
}

/// Takes defaults from a TOML file; flags and environment variables override it.
pub fn with_file(command: clap::Command, path: &Path) -> Result<clap::Command, ConfigError> {
    let at = || path.to_owned();
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: at(), source })?;
    let table: toml::Table = toml::from_str(&text).map_err(|source| ConfigError::Toml { path: at(), source })?;
    table.into_iter().try_fold(command, |command, (key, value)| {
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(truth) => truth.to_string(),
            _ => return Err(ConfigError::Value { path: at(), key }),
        };
        let known = command.get_subcommands().any(|sub| argument(sub, &key).is_some());
        if !known {
            return Err(ConfigError::Unknown { path: at(), key });
        }
        Ok(command.mut_subcommands(|sub| match argument(&sub, &key) {
            Some(id) => sub.mut_arg(id, |argument| argument.default_value(value.clone())),
            None => sub,
        }))
    })
}

/// The argument whose environment variable is this name in upper case.
fn argument(command: &clap::Command, key: &str) -> Option<clap::Id> {
    let name = key.to_ascii_uppercase();
    let is_it = |argument: &&clap::Arg| argument.get_env().is_some_and(|env| env == name.as_str());
    command.get_arguments().find(is_it).map(|argument| argument.get_id().clone())
}

/// A duration such as `30s`, `15m`, `12h`, `90d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "a time must be a whole number with s, m, h or d, like 15m";
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let number: i64 = digits.parse().map_err(|_| FORM)?;
        let seconds = match &text[digits.len()..] {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(FORM),
        };
        let seconds =
            number.checked_mul(seconds).filter(|seconds| (1..=3_650 * 86_400).contains(seconds)).ok_or(FORM)?;
        Ok(Self(Duration::seconds(seconds)))
    }
}

/// Delays before retries, such as `1m,5m,15m`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delays(pub Vec<Duration>);

impl FromStr for Delays {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "delays must be 1 to 20 times, comma-separated, like 1m,5m,15m";
        let delays: Vec<Duration> =
            text.split(',').map(|item| item.trim().parse().map(|Span(span)| span)).collect::<Result<_, _>>()?;
        (1..=20).contains(&delays.len()).then_some(Self(delays)).ok_or(FORM)
    }
}

/// A number of bytes such as `25MiB`, `512KiB`, `1000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub usize);

impl FromStr for Size {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "a size must be a whole number of bytes, or have the unit KiB or MiB, up to 128MiB";
        let (number, unit) = match text {
            _ if text.ends_with("MiB") => (&text[..text.len() - 3], 1 << 20),
            _ if text.ends_with("KiB") => (&text[..text.len() - 3], 1 << 10),
            _ => (text, 1),
        };
        let number: usize = number.trim().parse().map_err(|_| FORM)?;
        number.checked_mul(unit).filter(|size| (1..=128 << 20).contains(size)).map(Self).ok_or(FORM)
    }
}

/// The public URL of this server, without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(pub String);

impl FromStr for BaseUrl {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim_end_matches('/');
        let uri: http::Uri = text.parse().map_err(|_| "a base URL must look like https://hooks.example.com")?;
        let good = matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none() && uri.host().is_some();
        good.then(|| Self(text.to_owned())).ok_or("a base URL must begin with http:// or https:// and have no query")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_read_as_people_write_them() {
        assert_eq!("15m".parse(), Ok(Span(Duration::minutes(15))));
        assert_eq!("90d".parse(), Ok(Span(Duration::days(90))));
        assert_eq!("25MiB".parse(), Ok(Size(25 << 20)));
        for bad in ["", "15", "m", "-1s", "0s", "1w", "99999999999999999999d"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        for bad in ["", "0", "-1", "2GiB", "9999MiB"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn waits_before_retries_are_a_list_of_times() {
        let minutes = |all: &[i64]| all.iter().map(|n| Duration::minutes(*n)).collect();
        assert_eq!("1m, 5m,15m".parse(), Ok(Delays(minutes(&[1, 5, 15]))));
        for bad in ["", "1m,", "1m,,5m", "soon"] {
            assert!(bad.parse::<Delays>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_base_url_has_no_slash_at_its_end() {
        assert_eq!("http://localhost:8080/".parse(), Ok(BaseUrl("http://localhost:8080".to_owned())));
        assert!("localhost:8080".parse::<BaseUrl>().is_err());
    }
}
