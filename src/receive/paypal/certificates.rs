//! The available certificates: from the operator's directory, or fetched earlier.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, Duration, Utc};
use hookledger_aggregates::signature::{
    CertificateError, CertificateUrl, Certificates, Found, SigningCertificate, TrustRoots, trust_roots,
};

/// Names that a certificate must have: PayPal signs with these only, and has other certificates for other
/// purposes.
const NAMES: &[&str] = &["messageverificationcerts.paypal.com", "messageverificationcerts.sandbox.paypal.com"];
/// How long a certificate is used before it is checked or read again, because it may expire.
const CHECKED_FOR: Duration = Duration::minutes(10);
/// How long a bad certificate is not requested again.
const REFUSED_FOR: Duration = Duration::minutes(10);
/// Certificates remembered, both good and bad.
const REMEMBERED: usize = 1_000;
/// Maximum size of a certificate file in bytes.
pub(super) const MAX_PEM: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Roots { path: PathBuf, source: CertificateError },
}

#[derive(Debug)]
enum Entry {
    Good { certificate: Arc<SigningCertificate>, pem: Vec<u8>, checked_at: DateTime<Utc> },
    Bad { detail: String, since: DateTime<Utc> },
}

/// Shared between requests and the [`Verifier`](super::Verifier).
#[derive(Debug)]
pub struct CertificateStore {
    roots: TrustRoots,
    /// The operator's directory; if set, nothing is fetched.
    directory: Option<PathBuf>,
    entries: RwLock<HashMap<CertificateUrl, Entry>>,
}

impl CertificateStore {
    /// Trusts the roots of a PEM file, or else the public ones.
    pub fn new(directory: Option<PathBuf>, roots: Option<&Path>) -> Result<Self, StoreError> {
        let roots = match roots {
            None => webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            Some(path) => {
                let pem = std::fs::read(path).map_err(|source| StoreError::Read { path: path.to_owned(), source })?;
                trust_roots(&pem).map_err(|source| StoreError::Roots { path: path.to_owned(), source })?
            }
        };
        Ok(Self { roots, directory, entries: RwLock::default() })
    }

    /// Whether certificates come only from the operator's directory.
    pub(super) fn is_offline(&self) -> bool {
        self.directory.is_some()
    }

    /// Stores a fetched certificate if it is good.
    pub(super) fn put(&self, url: &CertificateUrl, pem: Vec<u8>, now: DateTime<Utc>) {
        let entry = self.check(pem, now);
        self.remember(url, entry);
    }

    /// Notes that there is no certificate at that URL.
    pub(super) fn refuse(&self, url: &CertificateUrl, detail: String, now: DateTime<Utc>) {
        self.remember(url, Entry::Bad { detail, since: now });
    }

    fn check(&self, pem: Vec<u8>, now: DateTime<Utc>) -> Entry {
        match SigningCertificate::check(&pem, &self.roots, NAMES, now) {
            Ok(certificate) => Entry::Good { certificate: Arc::new(certificate), pem, checked_at: now },
            Err(error) => Entry::Bad { detail: format!("The certificate can't be trusted: {error}."), since: now },
        }
    }

    fn remember(&self, url: &CertificateUrl, entry: Entry) -> Found {
        let found = entry.found();
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= REMEMBERED && !entries.contains_key(url) {
            // Strangers can name URLs that do not exist, whereas good certificates are few.
            entries.retain(|_, entry| matches!(entry, Entry::Good { .. }));
        }
        if entries.len() < REMEMBERED {
            entries.insert(url.clone(), entry);
        }
        found
    }

    /// Reads a certificate from the operator's directory: a small local file.
    fn read(&self, directory: &Path, url: &CertificateUrl, now: DateTime<Utc>) -> Found {
        let path = directory.join(format!("{}.pem", url.name()));
        let small = std::fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() <= MAX_PEM);
        match small.then(|| std::fs::read(&path).ok()).flatten() {
            Some(pem) => {
                let entry = self.check(pem, now);
                match entry {
                    // The operator may repair a bad file at any time, so it is not remembered.
                    Entry::Bad { .. } => entry.found(),
                    Entry::Good { .. } => self.remember(url, entry),
                }
            }
            // The operator may add the file at any time.
            None => Found::Unknown,
        }
    }
}

impl Entry {
    fn found(&self) -> Found {
        match self {
            Self::Good { certificate, .. } => Found::Certificate(Arc::clone(certificate)),
            Self::Bad { detail, .. } => Found::Refused(detail.clone()),
        }
    }
}

impl Certificates for CertificateStore {
    fn find(&self, url: &CertificateUrl, now: DateTime<Utc>) -> Found {
        let stale = {
            let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
            match entries.get(url) {
                Some(entry @ Entry::Good { checked_at, .. }) if (now - *checked_at).abs() < CHECKED_FOR => {
                    return entry.found();
                }
                Some(entry @ Entry::Bad { since, .. }) if (now - *since).abs() < REFUSED_FOR => return entry.found(),
                Some(Entry::Good { pem, .. }) => Some(pem.clone()),
                Some(Entry::Bad { .. }) | None => None,
            }
        };
        match (&self.directory, stale) {
            (Some(directory), _) => self.read(directory, url, now),
            (None, Some(pem)) => self.remember(url, self.check(pem, now)),
            (None, None) => Found::Unknown,
        }
    }
}
