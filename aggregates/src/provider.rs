//! A provider: an organization's connection to one third-party service.
//!
//! Events never contain secrets: they refer to one by ID and version, and its ciphertext is in a separate
//! table.

use std::collections::BTreeMap;

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use crate::decision::aggregate;
use crate::{Label, ProviderName, SecretId};

/// Longest grace period of a rotated secret.
pub const MAX_GRACE: Duration = Duration::days(30);
/// Default grace period of a rotated secret.
pub const DEFAULT_GRACE: Duration = Duration::hours(24);

/// Maximum number of incoming secrets that stay until they are revoked.
pub const MAX_SECRETS: usize = 8;
/// Maximum number of incoming secrets that verify at once, including rotated ones in their grace period: for
/// each, a forged request costs one more digest of its body.
pub const MAX_VERIFYING: usize = 16;
/// Maximum length of a secret's label in characters.
pub const MAX_SECRET_LABEL: usize = 64;

/// The state of a provider. Its stream outlives a deletion, so versions are never reused.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Provider {
    connected: bool,
    active: bool,
    /// How many times it was connected.
    #[serde(default)]
    generation: u32,
    last_version: u32,
    secrets: BTreeMap<u32, SecretState>,
    /// Labels of secrets, given by people.
    #[serde(default)]
    labels: BTreeMap<u32, Label>,
}

/// A secret in the vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    pub secret_id: SecretId,
    pub secret_version: u32,
}

/// One version of a secret that verifies or signs, until it expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretState {
    pub id: SecretId,
    pub expires_at: Option<DateTime<Utc>>,
}

/// Connects a provider, or changes its secrets or its status.
#[derive(Clone, Debug)]
pub enum ProviderCommand {
    Connect {
        provider_name: ProviderName,
        secret: SecretId,
        version: u32,
    },
    RotateSecret {
        secret: SecretId,
        version: u32,
        grace: Duration,
        /// The version that it replaces, if several stay.
        replaces: Option<u32>,
        now: DateTime<Utc>,
    },
    /// Adds a secret that verifies besides the others and stays, because two endpoints can send to one URL.
    AddSecret {
        secret: SecretId,
        version: u32,
        label: String,
        now: DateTime<Utc>,
    },
    LabelSecret {
        version: u32,
        label: String,
    },
    /// Ends its verification at once.
    RevokeSecret {
        version: u32,
        now: DateTime<Utc>,
    },
    SetActive(bool),
    Delete,
}

/// A provider was connected, changed or deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProviderEvent {
    #[serde(rename = "provider.connected", rename_all = "camelCase")]
    Connected { provider_name: ProviderName, secret_id: SecretId, secret_version: u32 },
    #[serde(rename = "provider.secret_rotated", rename_all = "camelCase")]
    SecretRotated { secret_id: SecretId, secret_version: u32, previous_expire_at: DateTime<Utc> },
    #[serde(rename = "provider.secret_added", rename_all = "camelCase")]
    SecretAdded { secret_id: SecretId, secret_version: u32, label: Option<Label> },
    #[serde(rename = "provider.secret_labelled", rename_all = "camelCase")]
    SecretLabelled { secret_version: u32, label: Label },
    /// This secret verifies until then.
    #[serde(rename = "provider.secret_revoked", rename_all = "camelCase")]
    SecretRevoked { secret_version: u32, expire_at: DateTime<Utc> },
    #[serde(rename = "provider.activated")]
    Activated {},
    #[serde(rename = "provider.deactivated")]
    Deactivated {},
    #[serde(rename = "provider.deleted")]
    Deleted {},
    /// Rejected requests beyond the rate limit, counted instead of logged individually.
    #[serde(rename = "provider.rejections_suppressed", rename_all = "camelCase")]
    RejectionsSuppressed { count: u64, since: DateTime<Utc> },
}

aggregate!(Provider, "provider", ProviderCommand, ProviderEvent, ProviderError, {
    Connected => "provider.connected" v 1,
    SecretRotated => "provider.secret_rotated" v 1,
    SecretAdded => "provider.secret_added" v 1,
    SecretLabelled => "provider.secret_labelled" v 1,
    SecretRevoked => "provider.secret_revoked" v 1,
    Activated => "provider.activated" v 1,
    Deactivated => "provider.deactivated" v 1,
    Deleted => "provider.deleted" v 1,
    RejectionsSuppressed => "provider.rejections_suppressed" v 1,
});

/// Why a command is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    #[error("This provider is already connected. Rotate its secret instead.")]
    AlreadyConnected,
    #[error("Provider not found.")]
    NotFound,
    #[error("The grace period must be between 0 seconds and 30 days.")]
    BadGrace,
    #[error("A label must be 1 to {MAX_SECRET_LABEL} characters, on one line.")]
    BadLabel,
    #[error("No active secret has version {0}.")]
    NoSuchSecret(u32),
    #[error("A provider can have {MAX_SECRETS} secrets, or {MAX_VERIFYING} including rotated ones. Revoke one first.")]
    TooManySecrets,
    #[error("This is the only secret. Rotate it, or deactivate the provider.")]
    LastSecret,
    #[error("Several secrets are active. Name the version that the new one replaces.")]
    ReplacesWhich,
    #[error("This provider was changed at the same time. Try again.")]
    VersionTaken,
}

impl Provider {
    /// The version of the next secret.
    #[must_use]
    pub fn next_version(&self) -> u32 {
        self.last_version + 1
    }

    /// Decides a command; all secrets and times come with it.
    pub fn decide(&self, command: ProviderCommand) -> Result<Vec<ProviderEvent>, ProviderError> {
        match command {
            ProviderCommand::Connect { .. } if self.connected => Err(ProviderError::AlreadyConnected),
            ProviderCommand::Connect { version, .. }
            | ProviderCommand::RotateSecret { version, .. }
            | ProviderCommand::AddSecret { version, .. }
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
            ProviderCommand::RotateSecret { secret, version, grace, replaces, now } => {
                self.rotate(secret, version, replaces, now, now + grace)
            }
            ProviderCommand::AddSecret { secret, version, label, now } => {
                if self.staying().count() >= MAX_SECRETS || self.verifying(now).count() >= MAX_VERIFYING {
                    return Err(ProviderError::TooManySecrets);
                }
                let label = Some(secret_label(&label)?);
                Ok(vec![ProviderEvent::SecretAdded { secret_id: secret, secret_version: version, label }])
            }
            ProviderCommand::LabelSecret { version, .. } if !self.secrets.contains_key(&version) => {
                Err(ProviderError::NoSuchSecret(version))
            }
            ProviderCommand::LabelSecret { version, label } => {
                let label = secret_label(&label)?;
                let is_same = self.labels.get(&version) == Some(&label);
                let event = ProviderEvent::SecretLabelled { secret_version: version, label };
                Ok(if is_same { vec![] } else { vec![event] })
            }
            ProviderCommand::RevokeSecret { version, now } => {
                if !self.verifying(now).any(|verifying| verifying == version) {
                    return Err(ProviderError::NoSuchSecret(version));
                }
                // Without a secret, every webhook would be refused as a forgery.
                if self.staying().all(|staying| staying == version) {
                    return Err(ProviderError::LastSecret);
                }
                Ok(vec![ProviderEvent::SecretRevoked { secret_version: version, expire_at: now }])
            }
            ProviderCommand::SetActive(active) if active == self.active => Ok(vec![]),
            ProviderCommand::SetActive(true) => Ok(vec![ProviderEvent::Activated {}]),
            ProviderCommand::SetActive(false) => Ok(vec![ProviderEvent::Deactivated {}]),
            ProviderCommand::Delete => Ok(vec![ProviderEvent::Deleted {}]),
        }
    }

    /// Versions of the secrets that stay.
    fn staying(&self) -> impl Iterator<Item = u32> {
        self.secrets.iter().filter(|(_, secret)| secret.expires_at.is_none()).map(|(version, _)| *version)
    }

    /// Versions of the secrets that verify at `now`.
    fn verifying(&self, now: DateTime<Utc>) -> impl Iterator<Item = u32> {
        let verifies = move |secret: &SecretState| secret.expires_at.is_none_or(|at| at > now);
        self.secrets.iter().filter(move |(_, secret)| verifies(secret)).map(|(version, _)| *version)
    }

    /// The new secret takes the label of the one that it replaces. Other staying secrets do not change.
    fn rotate(
        &self,
        secret_id: SecretId,
        secret_version: u32,
        replaces: Option<u32>,
        now: DateTime<Utc>,
        expire_at: DateTime<Utc>,
    ) -> Result<Vec<ProviderEvent>, ProviderError> {
        if self.verifying(now).count() >= MAX_VERIFYING {
            return Err(ProviderError::TooManySecrets);
        }
        let is_only = self.staying().count() <= 1;
        let before = match replaces {
            Some(version) if self.staying().any(|staying| staying == version) => Some(version),
            Some(version) => return Err(ProviderError::NoSuchSecret(version)),
            None if is_only => self.staying().next(),
            None => return Err(ProviderError::ReplacesWhich),
        };
        let label = before.and_then(|version| self.labels.get(&version)).cloned();
        Ok(match before {
            Some(before) if !is_only => vec![
                ProviderEvent::SecretAdded { secret_id, secret_version, label },
                ProviderEvent::SecretRevoked { secret_version: before, expire_at },
            ],
            _ => {
                let rotated = ProviderEvent::SecretRotated { secret_id, secret_version, previous_expire_at: expire_at };
                let labelled = label.map(|label| ProviderEvent::SecretLabelled { secret_version, label });
                std::iter::once(rotated).chain(labelled).collect()
            }
        })
    }

    /// Applies an event; public because the in-memory directory is the same fold.
    pub fn evolve(&mut self, event: &ProviderEvent) {
        match event {
            ProviderEvent::Connected { secret_id, secret_version, provider_name: _ } => {
                self.connected = true;
                self.active = true;
                self.generation += 1;
                self.last_version = *secret_version;
                self.secrets = BTreeMap::from([(*secret_version, SecretState { id: *secret_id, expires_at: None })]);
                self.labels.clear();
            }
            ProviderEvent::SecretAdded { secret_id, secret_version, label } => {
                self.last_version = self.last_version.max(*secret_version);
                self.secrets.insert(*secret_version, SecretState { id: *secret_id, expires_at: None });
                self.labels.extend(label.clone().map(|label| (*secret_version, label)));
            }
            ProviderEvent::SecretLabelled { secret_version, label } => {
                self.labels.insert(*secret_version, label.clone());
            }
            ProviderEvent::SecretRevoked { secret_version, expire_at } => {
                if let Some(secret) = self.secrets.get_mut(secret_version) {
                    expire_one(secret, *expire_at);
                }
            }
            ProviderEvent::SecretRotated { secret_id, secret_version, previous_expire_at } => {
                expire(&mut self.secrets, *previous_expire_at);
                self.last_version = *secret_version;
                self.secrets.insert(*secret_version, SecretState { id: *secret_id, expires_at: None });
            }
            ProviderEvent::Activated {} => self.active = true,
            ProviderEvent::Deactivated {} => self.active = false,
            ProviderEvent::Deleted {} => {
                self.connected = false;
                self.active = false;
                self.secrets.clear();
                self.labels.clear();
            }
            ProviderEvent::RejectionsSuppressed { .. } => {}
        }
    }

    /// Whether it exists and was not deleted.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// How many times it was connected: each time it is another sender, with its own event IDs.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether it accepts webhooks.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// The secrets by version, newest last, including expired ones.
    #[must_use]
    pub fn secrets(&self) -> &BTreeMap<u32, SecretState> {
        &self.secrets
    }
}

fn expire(secrets: &mut BTreeMap<u32, SecretState>, at: DateTime<Utc>) {
    secrets.values_mut().for_each(|secret| expire_one(secret, at));
}

/// An earlier rotation may have promised less time, which is not extended.
fn expire_one(secret: &mut SecretState, at: DateTime<Utc>) {
    secret.expires_at = Some(secret.expires_at.map_or(at, |earlier| earlier.min(at)));
}

fn secret_label(text: &str) -> Result<Label, ProviderError> {
    let label = Label::cut(text.trim(), MAX_SECRET_LABEL + 1);
    let is_whole = label.as_str() == text.trim() && label.as_str().chars().count() <= MAX_SECRET_LABEL;
    if is_whole && !label.as_str().is_empty() { Ok(label) } else { Err(ProviderError::BadLabel) }
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
        let secret = SecretId::default();
        ProviderCommand::RotateSecret { secret, version, grace, replaces: None, now: at(100) }
    }

    fn after(provider: &mut Provider, command: ProviderCommand) -> Result<(), ProviderError> {
        provider.decide(command)?.iter().for_each(|event| provider.evolve(event));
        Ok(())
    }

    fn add(version: u32, label: &str) -> ProviderCommand {
        ProviderCommand::AddSecret { secret: SecretId::default(), version, label: label.to_owned(), now: at(100) }
    }

    #[test]
    fn an_added_secret_stays_while_another_is_rotated() {
        let mut provider = given(&[connected(1)]);
        after(&mut provider, ProviderCommand::LabelSecret { version: 1, label: "Account".into() }).unwrap();
        after(&mut provider, add(2, " Connect ")).unwrap();
        assert_eq!(provider.labels[&2].as_str(), "Connect");
        assert_eq!(provider.decide(rotate(3, Duration::zero())), Err(ProviderError::ReplacesWhich));
        let (secret, grace) = (SecretId::default(), Duration::seconds(60));
        let rotate = |replaces, version| ProviderCommand::RotateSecret {
            secret,
            version,
            grace,
            replaces: Some(replaces),
            now: at(100),
        };
        assert_eq!(provider.decide(rotate(9, 3)), Err(ProviderError::NoSuchSecret(9)));
        after(&mut provider, rotate(1, 3)).unwrap();
        let expiries: Vec<_> = provider.secrets().values().map(|secret| secret.expires_at).collect();
        assert_eq!(expiries, [Some(at(160)), None, None]);
        assert_eq!(provider.labels[&3].as_str(), "Account");
    }

    #[test]
    fn a_secret_is_revoked_by_itself_and_never_the_last_one() {
        let mut provider = given(&[connected(1)]);
        let revoke = |version| ProviderCommand::RevokeSecret { version, now: at(100) };
        assert_eq!(provider.decide(revoke(1)), Err(ProviderError::LastSecret));
        after(&mut provider, add(2, "Connect")).unwrap();
        after(&mut provider, revoke(1)).unwrap();
        assert_eq!(provider.verifying(at(100)).collect::<Vec<_>>(), [2]);
        assert_eq!(provider.decide(revoke(1)), Err(ProviderError::NoSuchSecret(1)));
        assert_eq!(provider.decide(revoke(2)), Err(ProviderError::LastSecret));
        // A secret in its grace period is revoked early.
        after(&mut provider, self::rotate(3, Duration::days(1))).unwrap();
        after(&mut provider, revoke(2)).unwrap();
        assert_eq!(provider.verifying(at(100)).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn secrets_and_their_labels_are_bounded() {
        let mut provider = given(&[connected(1)]);
        for bad in ["", "  ", "a\nb", &"x".repeat(MAX_SECRET_LABEL + 1)] {
            assert_eq!(provider.decide(add(2, bad)), Err(ProviderError::BadLabel), "{bad:?}");
        }
        for version in 2..=u32::try_from(MAX_SECRETS).unwrap() {
            after(&mut provider, add(version, "x")).unwrap();
        }
        assert_eq!(provider.decide(add(provider.next_version(), "x")), Err(ProviderError::TooManySecrets));
        let mut provider = given(&[connected(1)]);
        while provider.verifying(at(100)).count() < MAX_VERIFYING {
            let next = provider.next_version();
            after(&mut provider, rotate(next, Duration::days(1))).unwrap();
        }
        assert_eq!(
            provider.decide(self::rotate(provider.next_version(), Duration::days(1))),
            Err(ProviderError::TooManySecrets)
        );
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
    fn only_a_connect_makes_another_sender_of_it() {
        let rotated = ProviderEvent::SecretRotated {
            secret_id: SecretId::default(),
            secret_version: 2,
            previous_expire_at: at(0),
        };
        let changed = [connected(1), rotated, ProviderEvent::Deactivated {}, ProviderEvent::Activated {}];
        assert_eq!(given(&changed).generation(), 1);
        assert_eq!(given(&[connected(1), ProviderEvent::Deleted {}]).generation(), 1);
        assert_eq!(given(&[connected(1), ProviderEvent::Deleted {}, connected(2)]).generation(), 2);
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
