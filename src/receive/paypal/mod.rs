//! PayPal's additional needs: certificates from elsewhere, and later verification of webhooks that arrived
//! before their certificate.

mod certificates;
mod fetch;
mod verifier;

pub use certificates::{CertificateStore, StoreError};
pub use fetch::{Fetch, FetchError, FetchFromPaypal};
pub use verifier::Verifier;
