//! Certificates that providers sign with: their chain, validity and owner.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::paypal::CertificateUrl;

/// Maximum number of certificates in a file or response: a leaf and its chain to a root.
const MAX_CHAIN: usize = 8;

/// Trusted certificate authorities.
pub type TrustRoots = Vec<TrustAnchor<'static>>;

/// A certificate whose chain, validity and owner were checked.
#[derive(Clone, Debug)]
pub struct SigningCertificate {
    leaf: CertificateDer<'static>,
}

/// Why a certificate is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("it isn't a PEM file with 1 to {} certificates", MAX_CHAIN)]
    Malformed,
    /// Expired, not valid yet, or without a chain to a trusted root.
    #[error("its chain isn't valid: {0}")]
    Chain(String),
    #[error("it isn't issued to {}", .0.join(" or "))]
    Subject(&'static [&'static str]),
}

/// What is known of the certificate at a URL.
#[derive(Debug)]
pub enum Found {
    Certificate(Arc<SigningCertificate>),
    /// It is known to be bad, for this reason.
    Refused(String),
    /// It has not been looked up yet.
    Unknown,
}

/// The available certificates. Never fetches anything.
pub trait Certificates: Sync {
    fn find(&self, url: &CertificateUrl, now: DateTime<Utc>) -> Found;
}

impl SigningCertificate {
    /// Reads the leaf and its intermediates, in PEM, and checks them as of `now`.
    pub fn check(
        pem: &[u8],
        roots: &[TrustAnchor<'_>],
        names: &'static [&'static str],
        now: DateTime<Utc>,
    ) -> Result<Self, CertificateError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
            .take(MAX_CHAIN + 1)
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateError::Malformed)?;
        let [leaf, intermediates @ ..] = chain.as_slice() else { return Err(CertificateError::Malformed) };
        if chain.len() > MAX_CHAIN {
            return Err(CertificateError::Malformed);
        }
        let failed = |error: webpki::Error| CertificateError::Chain(error.to_string());
        let seconds = u64::try_from(now.timestamp()).map_err(|_| CertificateError::Malformed)?;
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let certificate = EndEntityCert::try_from(leaf).map_err(failed)?;
        certificate
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                roots,
                intermediates,
                time,
                KeyUsage::server_auth(),
                None,
                None,
            )
            .map_err(failed)?;
        // Ignores the subject's common name: public authorities vouch only for alternative names.
        if !certificate.valid_dns_names().any(|name| names.iter().any(|known| known.eq_ignore_ascii_case(name))) {
            return Err(CertificateError::Subject(names));
        }
        Ok(Self { leaf: leaf.clone() })
    }

    /// Whether this is the certificate's RSA PKCS#1 v1.5 signature over the SHA-256 of the message.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm = webpki::ring::RSA_PKCS1_2048_8192_SHA256;
        EndEntityCert::try_from(&self.leaf)
            .is_ok_and(|certificate| certificate.verify_signature(algorithm, message, signature).is_ok())
    }
}

/// The certificates of a PEM file as roots.
pub fn trust_roots(pem: &[u8]) -> Result<TrustRoots, CertificateError> {
    let roots: TrustRoots = CertificateDer::pem_slice_iter(pem)
        .map(|root| {
            let root = root.map_err(|_| CertificateError::Malformed)?;
            let anchor = webpki::anchor_from_trusted_cert(&root);
            anchor.map(|anchor| anchor.to_owned()).map_err(|error| CertificateError::Chain(error.to_string()))
        })
        .collect::<Result<_, _>>()?;
    if roots.is_empty() { Err(CertificateError::Malformed) } else { Ok(roots) }
}
