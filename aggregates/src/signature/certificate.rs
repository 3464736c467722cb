//! Certificates that providers sign with: their chain, their validity and whose they are.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::paypal::CertificateUrl;

/// Certificates of one file or answer: a leaf and what links it to a root.
const MAX_CHAIN: usize = 8;

/// Who is trusted to say whose a certificate is.
pub type TrustRoots = Vec<TrustAnchor<'static>>;

/// A certificate whose chain, validity and subject were checked.
#[derive(Clone, Debug)]
pub struct SigningCertificate {
    leaf: CertificateDer<'static>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("it is not a PEM file with one to {} certificates", MAX_CHAIN)]
    Malformed,
    /// Expired, not valid yet, or no chain to a root that is trusted.
    #[error("its chain is not valid: {0}")]
    Chain(String),
    #[error("it is issued to another domain than {0}")]
    Subject(&'static str),
}

/// What is known of the certificate at a URL.
#[derive(Debug)]
pub enum Found {
    Certificate(Arc<SigningCertificate>),
    /// It is known to be no good, with what is wrong.
    Refused(String),
    /// It has not been looked for yet.
    Unknown,
}

/// The certificates that are at hand. Never fetches anything.
pub trait Certificates: Sync {
    fn find(&self, url: &CertificateUrl, now: DateTime<Utc>) -> Found;
}

impl SigningCertificate {
    /// Reads the leaf and its intermediates, in PEM, and checks them as of `now`.
    ///
    /// # Errors
    /// [`CertificateError`] with what is wrong.
    pub fn check(
        pem: &[u8],
        roots: &[TrustAnchor<'_>],
        domain: &'static str,
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
        let common_name = common_name(certificate.subject());
        let mut names = certificate.valid_dns_names().chain(common_name);
        if !names.any(|name| is_within(name, domain)) {
            return Err(CertificateError::Subject(domain));
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

fn is_within(name: &str, domain: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == domain || name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

/// The common name in a DER subject, for certificates without alternative names.
fn common_name(subject: &[u8]) -> Option<&str> {
    const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
    let mut rest = subject;
    let mut found = None;
    while let Some((0x31, set, after)) = element(rest) {
        rest = after;
        let Some((0x30, attribute, _)) = element(set) else { continue };
        let Some(value) = attribute.strip_prefix(COMMON_NAME) else { continue };
        // UTF8String, PrintableString, IA5String.
        if let Some((0x0c | 0x13 | 0x16, text, [])) = element(value) {
            found = std::str::from_utf8(text).ok();
        }
    }
    found
}

/// The tag and contents of a DER element, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, der) = der.split_first()?;
    let (length, der) = der.split_first()?;
    let (length, der) = match *length {
        short @ 0..=0x7f => (usize::from(short), der),
        0x81 => der.split_first().map(|(length, der)| (usize::from(*length), der))?,
        0x82 => {
            der.split_at_checked(2).map(|(length, der)| (usize::from(length[0]) << 8 | usize::from(length[1]), der))?
        }
        _ => return None,
    };
    der.split_at_checked(length).map(|(contents, rest)| (*tag, contents, rest))
}

/// The certificates of a PEM file as roots.
///
/// # Errors
/// When it holds none, or one that cannot be read.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_itself_and_what_lies_below_it() {
        for good in ["paypal.com", "messageverificationcerts.paypal.com", "*.PayPal.com"] {
            assert!(is_within(good, "paypal.com"), "{good}");
        }
        for bad in ["", "com", "evilpaypal.com", "paypal.com.evil.example", "paypal.comx"] {
            assert!(!is_within(bad, "paypal.com"), "{bad}");
        }
    }

    #[test]
    fn a_common_name_is_read_from_its_own_attribute_only() {
        let attribute = |oid: u8, text: &[u8]| {
            let length = u8::try_from(text.len()).unwrap();
            let mut der = vec![0x31, length + 9, 0x30, length + 7, 0x06, 0x03, 0x55, 0x04, oid, 0x0c, length];
            der.extend_from_slice(text);
            der
        };
        let subject = [attribute(10, b"\x06\x03\x55\x04\x03\x0c\x01x"), attribute(3, b"a.paypal.com")].concat();
        assert_eq!(common_name(&subject), Some("a.paypal.com"));
        assert_eq!(common_name(&subject[..subject.len() - 1]), None);
        assert_eq!(common_name(&attribute(10, b"paypal.com")), None);
        assert_eq!(common_name(&[0x31, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
