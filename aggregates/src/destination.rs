//! A destination: where an organization's webhooks are sent, and how.
//!
//! As with providers, events never contain secrets. All secrets of a destination share one sequence of versions: those
//! that sign deliveries, and the values of its headers.

use std::collections::BTreeMap;

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use crate::Label;
use crate::decision::aggregate;
use crate::provider::{MAX_GRACE, SecretRef, SecretState};

/// Default number of concurrent attempts at one destination, per node.
pub const DEFAULT_CONCURRENCY: u32 = 16;
/// Maximum number of concurrent attempts at one destination, per node.
pub const MAX_CONCURRENCY: u32 = 256;
/// Maximum number of secrets that sign a delivery at once: each costs a digest of its body.
pub const MAX_SIGNING: usize = 8;
/// Maximum timeout of a destination in seconds.
pub const MAX_TIMEOUT_SECONDS: u32 = 120;
/// Maximum length of a destination's or a route's name in characters.
pub const MAX_NAME: usize = 64;

/// The state of a destination. Its stream outlives a deletion, so versions are never reused, and what is still owed to
/// it can be delivered once it is set again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Destination {
    settings: Option<DestinationSettings>,
    last_version: u32,
    /// Secrets that sign deliveries by version.
    outgoing: BTreeMap<u32, SecretState>,
}

/// Where to send, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DestinationSettings {
    pub name: Label,
    pub url: String,
    /// `None` for the deployment's default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_seconds: Option<u32>,
    /// Concurrent attempts per node.
    pub concurrency: u32,
    /// Names of the additional headers of deliveries; their values may be credentials.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub header_names: Vec<String>,
    /// Reference to the headers' values.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub headers: Option<SecretRef>,
    /// Whether deliveries include the sender's signature, for a receiver that verifies with the sender's own
    /// secret.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub original_signature: bool,
}

/// Sets, changes or deletes a destination.
#[derive(Clone, Debug)]
pub enum DestinationCommand {
    /// `outgoing` is the secret that signs deliveries, if there is none yet.
    Set {
        settings: DestinationSettings,
        outgoing: Option<SecretRef>,
    },
    RotateSecret {
        secret: SecretRef,
        grace: Duration,
        now: DateTime<Utc>,
    },
    /// See [`DestinationEvent::Deleted`].
    Delete {
        secrets_end: bool,
    },
}

/// A destination was set, changed or deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DestinationEvent {
    #[serde(rename = "destination.set")]
    Set(DestinationSettings),
    /// A new secret signs deliveries; earlier ones sign as well until they expire.
    #[serde(rename = "destination.secret_set", rename_all = "camelCase")]
    SecretSet {
        #[serde(flatten)]
        secret: SecretRef,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        previous_expire_at: Option<DateTime<Utc>>,
    },
    /// Unless its signing secrets end with it, they are those of the destination when it is set again.
    #[serde(rename = "destination.deleted", rename_all = "camelCase")]
    Deleted { secrets_end: bool },
}

aggregate!(Destination, "destination", DestinationCommand, DestinationEvent, DestinationError, {
    Set => "destination.set" v 1,
    SecretSet => "destination.secret_set" v 1,
    Deleted => "destination.deleted" v 1,
});

/// Why a command is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    #[error("Destination not found.")]
    NotFound,
    #[error("A destination's name must be 1 to {MAX_NAME} characters, on one line.")]
    BadName,
    #[error("Concurrency must be between 1 and {MAX_CONCURRENCY}.")]
    BadConcurrency,
    #[error("The timeout must be between 1 and {MAX_TIMEOUT_SECONDS} seconds.")]
    BadTimeout,
    #[error("The grace period must be between 0 seconds and 30 days.")]
    BadGrace,
    #[error("{MAX_SIGNING} secrets sign deliveries already. Wait until one expires, or rotate without a grace period.")]
    TooManySigning,
    #[error("This destination was changed at the same time. Try again.")]
    VersionTaken,
}

impl Destination {
    /// The version of the next secret.
    #[must_use]
    pub fn next_version(&self) -> u32 {
        self.last_version + 1
    }

    /// Decides a command; all secrets and times come with it.
    pub fn decide(&self, command: DestinationCommand) -> Result<Vec<DestinationEvent>, DestinationError> {
        match command {
            DestinationCommand::Set { settings, outgoing } => self.set(settings, outgoing),
            // Also the secrets of one that was deleted before.
            DestinationCommand::Delete { secrets_end: true } if !self.outgoing.is_empty() => {
                Ok(vec![DestinationEvent::Deleted { secrets_end: true }])
            }
            _ if self.settings.is_none() => Err(DestinationError::NotFound),
            DestinationCommand::RotateSecret { grace, .. } if grace < Duration::zero() || grace > MAX_GRACE => {
                Err(DestinationError::BadGrace)
            }
            DestinationCommand::RotateSecret { secret, .. } if secret.secret_version != self.next_version() => {
                Err(DestinationError::VersionTaken)
            }
            // Without grace only the new one signs: a leaked secret can be ended at any time.
            DestinationCommand::RotateSecret { now, grace, .. }
                if grace > Duration::zero() && self.signing(now).count() >= MAX_SIGNING =>
            {
                Err(DestinationError::TooManySigning)
            }
            DestinationCommand::RotateSecret { secret, grace, now } => {
                Ok(vec![DestinationEvent::SecretSet { secret, previous_expire_at: Some(now + grace) }])
            }
            DestinationCommand::Delete { secrets_end } => Ok(vec![DestinationEvent::Deleted { secrets_end }]),
        }
    }

    fn set(
        &self,
        settings: DestinationSettings,
        outgoing: Option<SecretRef>,
    ) -> Result<Vec<DestinationEvent>, DestinationError> {
        if !is_name(&settings.name) {
            return Err(DestinationError::BadName);
        }
        if !(1..=MAX_CONCURRENCY).contains(&settings.concurrency) {
            return Err(DestinationError::BadConcurrency);
        }
        if settings.timeout_seconds.is_some_and(|seconds| !(1..=MAX_TIMEOUT_SECONDS).contains(&seconds)) {
            return Err(DestinationError::BadTimeout);
        }
        // Versions are assigned in sequence; unchanged headers keep theirs.
        let known = self.settings.as_ref().and_then(|known| known.headers);
        let new_headers = settings.headers.filter(|headers| Some(*headers) != known);
        let given = outgoing.into_iter().chain(new_headers).map(|secret| secret.secret_version);
        let in_order = given.zip(self.next_version()..).all(|(version, next)| version == next);
        if !in_order || outgoing.is_some() != self.outgoing.is_empty() {
            return Err(DestinationError::VersionTaken);
        }
        let secret = outgoing.map(|secret| DestinationEvent::SecretSet { secret, previous_expire_at: None });
        let changed = (self.settings.as_ref() != Some(&settings)).then_some(DestinationEvent::Set(settings));
        Ok(secret.into_iter().chain(changed).collect())
    }

    /// Secrets that sign deliveries at `now`.
    fn signing(&self, now: DateTime<Utc>) -> impl Iterator<Item = &SecretState> {
        self.outgoing.values().filter(move |secret| secret.expires_at.is_none_or(|at| at > now))
    }

    /// Applies an event; public because the in-memory directory is the same fold.
    pub fn evolve(&mut self, event: &DestinationEvent) {
        match event {
            DestinationEvent::Set(settings) => {
                if let Some(headers) = settings.headers {
                    self.last_version = self.last_version.max(headers.secret_version);
                }
                self.settings = Some(settings.clone());
            }
            DestinationEvent::SecretSet { secret, previous_expire_at } => {
                if let Some(at) = previous_expire_at {
                    for earlier in self.outgoing.values_mut() {
                        // An earlier rotation may have promised less time, which is not extended.
                        earlier.expires_at = Some(earlier.expires_at.map_or(*at, |earlier| earlier.min(*at)));
                    }
                }
                self.last_version = self.last_version.max(secret.secret_version);
                self.outgoing.insert(secret.secret_version, SecretState { id: secret.secret_id, expires_at: None });
            }
            DestinationEvent::Deleted { secrets_end } => {
                self.settings = None;
                if *secrets_end {
                    self.outgoing.clear();
                }
            }
        }
    }

    /// Where to send and how; `None` if it was deleted.
    #[must_use]
    pub fn settings(&self) -> Option<&DestinationSettings> {
        self.settings.as_ref()
    }

    /// The secrets that sign deliveries by version, newest last, including expired ones.
    #[must_use]
    pub fn outgoing(&self) -> &BTreeMap<u32, SecretState> {
        &self.outgoing
    }
}

/// Whether a person can give something this name.
pub(crate) fn is_name(name: &Label) -> bool {
    let text = name.as_str();
    !text.is_empty()
        && text.trim() == text
        && text.chars().count() <= MAX_NAME
        && !text.contains(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SecretId;

    fn given(events: &[DestinationEvent]) -> Destination {
        let mut destination = Destination::default();
        events.iter().for_each(|event| destination.evolve(event));
        destination
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn secret(version: u32) -> SecretRef {
        SecretRef { secret_id: SecretId::default(), secret_version: version }
    }

    fn settings(url: &str, headers: Option<SecretRef>) -> DestinationSettings {
        let header_names = headers.map(|_| "authorization".to_owned()).into_iter().collect();
        DestinationSettings {
            name: Label::new("Billing"),
            url: url.to_owned(),
            timeout_seconds: None,
            concurrency: 4,
            header_names,
            headers,
            original_signature: false,
        }
    }

    fn signed(version: u32) -> DestinationEvent {
        DestinationEvent::SecretSet { secret: secret(version), previous_expire_at: None }
    }

    #[test]
    fn the_first_setting_comes_with_a_secret_and_later_ones_keep_it() {
        let first = settings("https://a.example/", Some(secret(2)));
        let set = |outgoing| DestinationCommand::Set { settings: first.clone(), outgoing };
        assert_eq!(Destination::default().decide(set(None)), Err(DestinationError::VersionTaken));
        let events = Destination::default().decide(set(Some(secret(1)))).unwrap();
        assert_eq!(events, [signed(1), DestinationEvent::Set(first.clone())]);
        let destination = given(&events);
        assert_eq!(destination.next_version(), 3);
        assert_eq!(destination.decide(set(None)), Ok(vec![]));
        let second = settings("https://b.example/", first.headers);
        let change = DestinationCommand::Set { settings: second.clone(), outgoing: None };
        assert_eq!(destination.decide(change), Ok(vec![DestinationEvent::Set(second)]));
        let stale = settings("https://b.example/", Some(secret(2 + 2)));
        let change = DestinationCommand::Set { settings: stale, outgoing: None };
        assert_eq!(destination.decide(change), Err(DestinationError::VersionTaken));
    }

    #[test]
    fn a_rotated_secret_signs_beside_the_new_one_until_its_grace_ends() {
        let rotate = |secret| DestinationCommand::RotateSecret { secret, grace: Duration::seconds(9), now: at(1) };
        assert_eq!(Destination::default().decide(rotate(secret(1))), Err(DestinationError::NotFound));
        let mut destination = given(&[signed(1), DestinationEvent::Set(settings("https://a.example/", None))]);
        for event in destination.decide(rotate(secret(2))).unwrap() {
            destination.evolve(&event);
        }
        let expiries: Vec<_> = destination.outgoing().values().map(|secret| secret.expires_at).collect();
        assert_eq!(expiries, [Some(at(10)), None]);
    }

    #[test]
    fn so_many_secrets_sign_at_once_and_a_leaked_one_can_always_be_ended() {
        let mut destination = given(&[signed(1), DestinationEvent::Set(settings("https://a.example/", None))]);
        let rotate = |version, grace| DestinationCommand::RotateSecret {
            secret: secret(version),
            grace: Duration::seconds(grace),
            now: at(1),
        };
        for version in 2..=8 {
            for event in destination.decide(rotate(version, 60)).unwrap() {
                destination.evolve(&event);
            }
        }
        assert_eq!(destination.decide(rotate(9, 60)), Err(DestinationError::TooManySigning));
        for event in destination.decide(rotate(9, 0)).unwrap() {
            destination.evolve(&event);
        }
        assert_eq!(destination.signing(at(1)).count(), 1);
    }

    #[test]
    fn a_deleted_destination_keeps_its_secrets_for_what_is_owed_to_it_unless_they_end() {
        let set = DestinationEvent::Set(settings("https://a.example/", None));
        let deleted = given(&[signed(1), set.clone(), DestinationEvent::Deleted { secrets_end: false }]);
        assert_eq!(deleted.settings(), None);
        assert_eq!(deleted.decide(DestinationCommand::Delete { secrets_end: false }), Err(DestinationError::NotFound));
        let again = |outgoing| DestinationCommand::Set { settings: settings("https://a.example/", None), outgoing };
        assert_eq!(deleted.decide(again(None)), Ok(vec![set.clone()]));
        let ended = given(&[signed(1), set, DestinationEvent::Deleted { secrets_end: true }]);
        assert_eq!(ended.decide(again(None)), Err(DestinationError::VersionTaken));
        assert!(ended.decide(again(Some(secret(2)))).is_ok());
    }

    #[test]
    fn names_are_short_and_on_one_line() {
        for bad in ["", " a", "a\nb", &"x".repeat(MAX_NAME + 1)] {
            let settings = DestinationSettings { name: Label::new(bad), ..settings("https://a.example/", None) };
            let set = DestinationCommand::Set { settings, outgoing: Some(secret(1)) };
            assert_eq!(Destination::default().decide(set), Err(DestinationError::BadName), "{bad:?}");
        }
    }
}
