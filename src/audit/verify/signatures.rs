//! Verifies the senders' signatures again: the stored request, with the secret that verified it.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use hookledger_aggregates::provider::ProviderEvent;
use hookledger_aggregates::signature::{
    CertificateUrl, Certificates, Found, SigningSecret, Trust, Unverified, Verdict, verify,
};
use hookledger_aggregates::webhook::{SignatureMatch, SignatureScheme};
use hookledger_aggregates::{Event, OrganizationId, ProviderId, ProviderName, SecretId};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;

use super::events::{Attested, EventCheck, Request};
use super::finding::{Finding, Findings, Kind};
use super::tally::Tally;
use crate::log::stored_event::StoredEvent;
use crate::platform::secrets::vault::{SecretOwner, Vault, VaultError};

/// Certificates are not stored with the log.
struct NoCertificates;

impl Certificates for NoCertificates {
    fn find(&self, _: &CertificateUrl, _: DateTime<Utc>) -> Found {
        Found::Unknown
    }
}

/// The request of the last event.
struct Received {
    webhook: String,
    provider: ProviderName,
    provider_id: ProviderId,
    /// `None` if it is no longer stored.
    request: Option<(HeaderMap, Vec<u8>)>,
}

/// Verifies signatures of successive events.
pub(super) struct Signatures {
    vault: Vault,
    secrets: HashMap<(ProviderId, u32), SecretId>,
    opened: HashMap<(ProviderId, u32), Result<[SigningSecret; 1], &'static str>>,
    received: Option<Received>,
}

impl Signatures {
    pub(super) fn new(vault: Vault) -> Self {
        Self { vault, secrets: HashMap::new(), opened: HashMap::new(), received: None }
    }

    /// Checks the next event, with its stored request.
    pub(super) async fn check(
        &mut self,
        order: &EventCheck,
        event: &StoredEvent<&str>,
        request: Option<&Request<'_>>,
        tally: &mut Tally,
        findings: &mut Findings,
    ) -> Result<(), VaultError> {
        let received = self.received.take();
        match event.event_type {
            "webhook.received" | "webhook.received_unverified" => self.received = receive(event, request),
            "webhook.signature_verified" => {
                let same = received.filter(|received| received.webhook == event.aggregate_id);
                match self.verify(event, same).await? {
                    Ok(()) => tally.signatures_verified += 1,
                    Err(Unproved::Skipped(why)) => tally.skip_signature(why),
                    Err(Unproved::Wrong(text)) => {
                        let (ledger, place) = order.whereabouts(event);
                        findings.add(Finding::at(Kind::Signature, place, ledger, text));
                    }
                }
            }
            "provider.connected" | "provider.secret_rotated" | "provider.secret_added" => self.note_secret(event),
            _ => {}
        }
        Ok(())
    }

    fn note_secret(&mut self, event: &StoredEvent<&str>) {
        let Ok(payload) = serde_json::from_str::<&RawValue>(event.payload) else { return };
        let decoded = Event::decode(event.aggregate_type, event.event_type, event.event_version, payload);
        let Ok(provider) = event.aggregate_id.parse::<ProviderId>() else { return };
        if let Ok(Event::Provider(
            ProviderEvent::Connected { secret_id, secret_version, .. }
            | ProviderEvent::SecretRotated { secret_id, secret_version, .. }
            | ProviderEvent::SecretAdded { secret_id, secret_version, .. },
        )) = decoded
        {
            self.secrets.insert((provider, secret_version), secret_id);
        }
    }

    async fn verify(
        &mut self,
        event: &StoredEvent<&str>,
        received: Option<Received>,
    ) -> Result<Result<(), Unproved>, VaultError> {
        let skipped = |why| Ok(Err(Unproved::Skipped(why)));
        let Ok(matched) = serde_json::from_str::<SignatureMatch>(event.payload) else {
            return skipped("the event cannot be decoded");
        };
        if matched.scheme == SignatureScheme::RsaSha256 {
            return skipped("the sender's certificate is not stored");
        }
        let Some(received) = received else { return skipped("it was verified later than received") };
        let Some((headers, body)) = received.request else { return skipped("the request is no longer stored") };
        let provider = matched.provider_id.unwrap_or(received.provider_id);
        let organization = OrganizationId::new(event.organization);
        let secret = match self.secret(organization, provider, matched.secret_version).await? {
            Ok(secret) => secret,
            Err(why) => return skipped(why),
        };
        let now = matched.signed_at.or_else(|| DateTime::from_timestamp_micros(event.recorded_at)).unwrap_or_default();
        let trust = Trust { certificates: &NoCertificates, paypal_max_age: chrono::Duration::zero() };
        let request = Unverified { headers: &headers, body: &body };
        Ok(match verify(received.provider, request, secret, &trust, now) {
            Ok(Verdict::Verified(_)) => Ok(()),
            Ok(Verdict::NeedsCertificate(_)) => Err(Unproved::Skipped("the sender's certificate is not stored")),
            Err(refusal) => Err(Unproved::Wrong(format!(
                "the stored request does not verify with version {} of the secret, which verified it originally: {}",
                matched.secret_version,
                refusal.detail.as_str()
            ))),
        })
    }

    async fn secret(
        &mut self,
        organization: OrganizationId,
        provider: ProviderId,
        version: u32,
    ) -> Result<Result<&[SigningSecret], &'static str>, VaultError> {
        if !self.opened.contains_key(&(provider, version)) {
            let opened = match self.secrets.get(&(provider, version)) {
                None => Err("the log does not identify the secret"),
                Some(id) => match self.vault.open(organization, SecretOwner::Provider(provider), version, *id).await {
                    Ok(value) => Ok([SigningSecret { version, value, expires_at: None }]),
                    Err(VaultError::Key(_)) => Err("the secret cannot be opened with the master keys given"),
                    Err(VaultError::Absent(_)) => Err("the secret no longer exists"),
                    Err(error @ VaultError::Database(_)) => return Err(error),
                },
            };
            self.opened.insert((provider, version), opened);
        }
        let known = self.opened.get(&(provider, version));
        Ok(known.map_or(Err("the log does not identify the secret"), |known| {
            known.as_ref().map_or_else(|why| Err(*why), |secret| Ok(&secret[..]))
        }))
    }
}

enum Unproved {
    Skipped(&'static str),
    Wrong(String),
}

fn receive(event: &StoredEvent<&str>, request: Option<&Request<'_>>) -> Option<Received> {
    let attested: Attested<'_> = serde_json::from_str(event.payload).ok()?;
    Some(Received {
        webhook: event.aggregate_id.to_owned(),
        provider: attested.provider,
        provider_id: attested.provider_id,
        request: request.map(|request| (header_map(request.headers), request.body.to_vec())),
    })
}

/// The original headers, from their stored lines.
fn header_map(lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let pair = HeaderName::from_bytes(&line[..colon]).ok().zip(HeaderValue::from_bytes(&line[colon + 1..]).ok());
        if let Some((name, value)) = pair {
            // More headers than a map holds cannot have been received.
            let _ = headers.try_append(name, value);
        }
    }
    headers
}
