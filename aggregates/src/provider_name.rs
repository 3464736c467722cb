//! The supported services.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A kind of sender. To add one: a variant here and a file under `signature/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderName {
    /// Signs a time and the body: `stripe-signature`.
    Stripe,
    /// Signs the body: `x-hub-signature-256`.
    Github,
    /// Signs with a certificate that has to be fetched: `paypal-transmission-sig`.
    Paypal,
    /// Signs the body: `x-shopify-hmac-sha256`.
    Shopify,
    /// Any sender of Standard Webhooks.
    Standard,
}

impl ProviderName {
    /// Every service.
    pub const ALL: [Self; 5] = [Self::Stripe, Self::Github, Self::Paypal, Self::Shopify, Self::Standard];

    /// The name in URLs, events and read models.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
            Self::Github => "github",
            Self::Paypal => "paypal",
            Self::Shopify => "shopify",
            Self::Standard => "standard",
        }
    }
}

impl ProviderName {
    /// Whether its signature covers only the body, neither an ID nor a time, so that a recorded request
    /// verifies forever, under any ID.
    #[must_use]
    pub const fn signs_body_alone(self) -> bool {
        match self {
            Self::Github | Self::Shopify => true,
            Self::Stripe | Self::Paypal | Self::Standard => false,
        }
    }
}

impl fmt::Display for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No provider has that name.
#[derive(Debug, thiserror::Error)]
#[error("Unknown provider. Use stripe, github, paypal, shopify, or standard.")]
pub struct UnknownProvider;

impl FromStr for ProviderName {
    type Err = UnknownProvider;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or(UnknownProvider)
    }
}
