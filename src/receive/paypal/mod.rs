//! What PayPal needs besides a signature check: certificates from elsewhere, and a second look at
//! what came before its certificate was at hand.

mod certificates;
mod fetch;
mod verifier;

pub use certificates::{CertificateStore, StoreError};
pub use fetch::{Fetch, FetchError, FetchFromPaypal};
pub use verifier::Verifier;
