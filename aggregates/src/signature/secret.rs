//! Checks whether a text can be a provider's signing secret: its form, and what people paste by mistake. The
//! web form and the mutations both call this, so that they always agree.

use super::{paypal, standard};
use crate::ProviderName;

/// An opinion on a secret without knowing the right one. The sentences never contain the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opinion {
    Fine,
    /// It can be one, but rarely is.
    Doubtful(&'static str),
    /// It certainly is not one.
    Refused(&'static str),
    /// PayPal's simulator signs with it for anybody, so it is accepted only if a person wants that.
    Simulator,
}

/// Maximum length of a secret in bytes.
const MAX_SECRET: usize = 1024;
/// A shorter secret can be guessed.
const SHORT: usize = 16;

/// The opinion on `secret` as one of that provider's.
#[must_use]
pub fn judge_secret(provider: ProviderName, secret: &str) -> Opinion {
    use Opinion::{Doubtful, Fine, Refused, Simulator};
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| secret.starts_with(prefix));
    if secret.is_empty() {
        return Refused("The secret is empty.");
    }
    if secret.len() > MAX_SECRET {
        return Refused("The secret is longer than 1024 bytes.");
    }
    if secret.chars().any(char::is_control) || secret.trim() != secret {
        return Refused("The secret begins or ends with a space, or contains a line break. Paste it without them.");
    }
    if begins(&["https:", "http:"]) {
        return Refused("This is a URL, not a secret.");
    }
    match provider {
        ProviderName::Stripe if begins(&["sk_", "rk_"]) => Refused(
            "This is an API key. Webhooks are signed with the secret that begins with whsec_. Keep API keys to yourself.",
        ),
        ProviderName::Stripe if begins(&["pk_"]) => {
            Refused("This is a publishable key. Webhooks are signed with the secret that begins with whsec_.")
        }
        ProviderName::Stripe if begins(&["we_"]) => {
            Refused("This is the endpoint's ID. Its signing secret begins with whsec_.")
        }
        ProviderName::Stripe if !begins(&["whsec_"]) => Doubtful("Stripe signing secrets begin with whsec_."),
        ProviderName::Github if begins(&["gho_", "ghp_", "ghr_", "ghs_", "ghu_", "github_pat_"]) => {
            Refused("This is an access token. A webhook secret is any text you choose.")
        }
        ProviderName::Github if secret.len() < SHORT => {
            Doubtful("A short secret can be guessed. Generate a longer one.")
        }
        ProviderName::Shopify if begins(&["shpat_", "shpca_", "shppa_"]) => Refused(
            "This is an access token. Webhooks are signed with the client secret, or with the key shown below your list of webhooks.",
        ),
        ProviderName::Paypal if secret == paypal::SIMULATOR => Simulator,
        ProviderName::Paypal => paypal::check_secret(secret).map_or_else(Refused, |()| Fine),
        ProviderName::Standard => standard::check_secret(secret).map_or_else(Refused, |()| Fine),
        ProviderName::Stripe | ProviderName::Github | ProviderName::Shopify => Fine,
    }
}

/// Why PayPal's simulator is not accepted by accident.
pub const SIMULATOR_SENTENCE: &str = "PayPal's webhooks simulator signs as WEBHOOK_ID for anyone with a PayPal \
     account. To accept its webhooks, set acceptSimulator.";

/// Whether a secret can be one of this provider's.
///
/// # Errors
/// A sentence that says what the secret should look like. It does not contain the secret.
pub fn check_secret(provider: ProviderName, secret: &str, accept_simulator: bool) -> Result<(), &'static str> {
    match judge_secret(provider, secret) {
        Opinion::Fine | Opinion::Doubtful(_) => Ok(()),
        Opinion::Simulator if accept_simulator => Ok(()),
        Opinion::Simulator => Err(SIMULATOR_SENTENCE),
        Opinion::Refused(sentence) => Err(sentence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_were_pasted_badly_are_refused_with_a_reason() {
        for bad in ["", " abc", "abc\n", "a\u{0}b", "https://a.example/"] {
            assert!(check_secret(ProviderName::Github, bad, false).is_err(), "{bad:?}");
        }
        assert!(check_secret(ProviderName::Github, "It's a Secret to Everybody", false).is_ok());
    }

    #[test]
    fn other_credentials_of_the_same_service_are_refused() {
        for (provider, other) in [
            (ProviderName::Stripe, "sk_live_1"),
            (ProviderName::Stripe, "we_1"),
            (ProviderName::Github, "ghp_0123456789abcdef"),
            (ProviderName::Shopify, "shpat_0123456789abcdef"),
        ] {
            assert!(matches!(judge_secret(provider, other), Opinion::Refused(_)), "{other}");
        }
    }

    #[test]
    fn the_simulators_id_is_taken_only_where_a_person_says_so() {
        assert!(check_secret(ProviderName::Paypal, "WEBHOOK_ID", false).unwrap_err().contains("acceptSimulator"));
        assert!(check_secret(ProviderName::Paypal, "WEBHOOK_ID", true).is_ok());
        assert!(check_secret(ProviderName::Paypal, "WEBHOOK-ID_", true).is_err());
    }
}
