//! A provider: one organization's connection to one third-party service.
//!
//! The signing secrets themselves are never here: an event names a secret by id and version, and
//! its ciphertext lies in a table of its own.

use std::collections::BTreeMap;

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use crate::decision::aggregate;
use crate::{ProviderName, SecretId};

/// The longest grace period of a rotated secret.
pub const MAX_GRACE: Duration = Duration::days(30);
/// The grace period of a rotated secret, when none is named.
pub const DEFAULT_GRACE: Duration = Duration::hours(24);

/// State of one provider. Its stream outlives a deletion, so versions are never used twice.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Provider {
    connected: bool,
    active: bool,
    last_version: u32,
    secrets: BTreeMap<u32, SecretState>,
}

/// One version of the signing secret that verifies, until it expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretState {
    pub id: SecretId,
    pub expires_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug)]
pub enum ProviderCommand {
    Connect { provider_name: ProviderName, secret: SecretId, version: u32 },
    RotateSecret { secret: SecretId, version: u32, grace: Duration, now: DateTime<Utc> },
    SetActive(bool),
    Delete,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProviderEvent {
    #[serde(rename = "provider.connected", rename_all = "camelCase")]
    Connected { provider_name: ProviderName, secret_id: SecretId, secret_version: u32 },
    #[serde(rename = "provider.secret_rotated", rename_all = "camelCase")]
    SecretRotated { secret_id: SecretId, secret_version: u32, previous_expire_at: DateTime<Utc> },
    #[serde(rename = "provider.activated")]
    Activated {},
    #[serde(rename = "provider.deactivated")]
    Deactivated {},
    #[serde(rename = "provider.deleted")]
    Deleted {},
    /// Requests that were refused beyond the rate limit, counted instead of logged one by one.
    #[serde(rename = "provider.rejections_suppressed", rename_all = "camelCase")]
    RejectionsSuppressed { count: u64, since: DateTime<Utc> },
}

aggregate!(Provider, "provider", ProviderCommand, ProviderEvent, ProviderError, {
    Connected => "provider.connected" v 1,
    SecretRotated => "provider.secret_rotated" v 1,
    Activated => "provider.activated" v 1,
    Deactivated => "provider.deactivated" v 1,
    Deleted => "provider.deleted" v 1,
    RejectionsSuppressed => "provider.rejections_suppressed" v 1,
});

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    #[error("this provider is connected already; rotate its secret instead")]
    AlreadyConnected,
    #[error("there is no such provider")]
    NotFound,
    #[error("the grace period is between 0 seconds and 30 days")]
    BadGrace,
    #[error("another change to this provider came first; try again")]
    VersionTaken,
}

impl Provider {
    /// The version that the next secret will have.
    #[must_use]
    pub fn next_version(&self) -> u32 {
        self.last_version + 1
    }

    /// # Errors
    /// [`ProviderError`] when the provider is, or is not, connected, or the command is malformed.
    pub fn decide(&self, command: ProviderCommand) -> Result<Vec<ProviderEvent>, ProviderError> {
        match command {
            ProviderCommand::Connect { .. } if self.connected => Err(ProviderError::AlreadyConnected),
            ProviderCommand::Connect { version, .. } | ProviderCommand::RotateSecret { version, .. }
                if version != self.next_version() =>
            {
                Err(ProviderError::VersionTaken)
            }
            ProviderCommand::Connect { provider_name, secret, version } => {
                Ok(vec![ProviderEvent::Connected { provider_name, secret_id: secret, secret_version: version }])
            }
            _ if !self.connected => Err(ProviderError::NotFound),
            ProviderCommand::RotateSecret { grace, .. } if grace < Duration::zero() || grace > MAX_GRACE => {
                Err(ProviderError::BadGrace)
            }
            ProviderCommand::RotateSecret { secret, version, grace, now } => Ok(vec![ProviderEvent::SecretRotated {
                secret_id: secret,
                secret_version: version,
                previous_expire_at: now + grace,
            }]),
            ProviderCommand::SetActive(active) if active == self.active => Ok(vec![]),
            ProviderCommand::SetActive(true) => Ok(vec![ProviderEvent::Activated {}]),
            ProviderCommand::SetActive(false) => Ok(vec![ProviderEvent::Deactivated {}]),
            ProviderCommand::Delete => Ok(vec![ProviderEvent::Deleted {}]),
        }
    }

    /// Applies an event; public because the in-memory directory is the same fold.
    pub fn evolve(&mut self, event: &ProviderEvent) {
        match event {
            ProviderEvent::Connected { secret_id, secret_version, provider_name: _ } => {
                self.connected = true;
                self.active = true;
                self.last_version = *secret_version;
                self.secrets = BTreeMap::from([(*secret_version, SecretState { id: *secret_id, expires_at: None })]);
            }
            ProviderEvent::SecretRotated { secret_id, secret_version, previous_expire_at } => {
                for secret in self.secrets.values_mut() {
                    // An earlier rotation may have promised less; it is not prolonged.
                    secret.expires_at =
                        Some(secret.expires_at.map_or(*previous_expire_at, |at| at.min(*previous_expire_at)));
                }
                self.last_version = *secret_version;
                self.secrets.insert(*secret_version, SecretState { id: *secret_id, expires_at: None });
            }
            ProviderEvent::Activated {} => self.active = true,
            ProviderEvent::Deactivated {} => self.active = false,
            ProviderEvent::Deleted {} => {
                self.connected = false;
                self.active = false;
                self.secrets.clear();
            }
            ProviderEvent::RejectionsSuppressed { .. } => {}
        }
    }

    /// Whether it exists and was not deleted.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Whether it accepts webhooks.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// The secrets by version, newest last, expired ones among them.
    #[must_use]
    pub fn secrets(&self) -> &BTreeMap<u32, SecretState> {
        &self.secrets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(events: &[ProviderEvent]) -> Provider {
        let mut provider = Provider::default();
        events.iter().for_each(|event| provider.evolve(event));
        provider
    }

    fn connected(version: u32) -> ProviderEvent {
        ProviderEvent::Connected {
            provider_name: ProviderName::Github,
            secret_id: SecretId::default(),
            secret_version: version,
        }
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn rotate(version: u32, grace: Duration) -> ProviderCommand {
        ProviderCommand::RotateSecret { secret: SecretId::default(), version, grace, now: at(100) }
    }

    #[test]
    fn a_deleted_provider_cannot_be_activated() {
        let provider = given(&[connected(1), ProviderEvent::Deleted {}]);
        assert_eq!(provider.decide(ProviderCommand::SetActive(true)), Err(ProviderError::NotFound));
    }

    #[test]
    fn a_provider_is_connected_once_until_deleted() {
        let again = |version| ProviderCommand::Connect {
            provider_name: ProviderName::Github,
            secret: SecretId::default(),
            version,
        };
        assert_eq!(given(&[connected(1)]).decide(again(2)), Err(ProviderError::AlreadyConnected));
        assert_eq!(given(&[connected(1), ProviderEvent::Deleted {}]).decide(again(2)), Ok(vec![connected(2)]));
    }

    #[test]
    fn rotating_keeps_the_previous_secret_for_its_grace() {
        let mut provider = given(&[connected(1)]);
        for event in provider.decide(rotate(2, Duration::seconds(60))).unwrap() {
            provider.evolve(&event);
        }
        let expiries: Vec<_> = provider.secrets().values().map(|secret| secret.expires_at).collect();
        assert_eq!(expiries, [Some(at(160)), None]);
    }

    #[test]
    fn two_rotations_at_once_do_not_share_a_version() {
        let provider = given(&[connected(1)]);
        assert_eq!(provider.decide(rotate(1, Duration::zero())), Err(ProviderError::VersionTaken));
    }

    #[test]
    fn a_grace_period_is_bounded() {
        let provider = given(&[connected(1)]);
        assert_eq!(provider.decide(rotate(2, Duration::seconds(-1))), Err(ProviderError::BadGrace));
        assert_eq!(provider.decide(rotate(2, Duration::days(31))), Err(ProviderError::BadGrace));
    }
}
