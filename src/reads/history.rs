//! An organization's settings at some time, folded from its events. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use hookledger_aggregates::destination::DestinationEvent;
use hookledger_aggregates::organization::{OrganizationEvent, Plan};
use hookledger_aggregates::provider::ProviderEvent;
use hookledger_aggregates::user::{Role, UserEvent};
use hookledger_aggregates::{DestinationId, Event, ProviderId, ProviderName, RecordedEvent, UserId};

/// The state of an organization.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `None` before it was created.
    pub organization: Option<OrganizationSettings>,
    pub users: BTreeMap<UserId, UserSettings>,
    /// Without deleted ones.
    pub providers: BTreeMap<ProviderId, ProviderSettings>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrganizationSettings {
    pub name: String,
    pub slug: String,
    pub plan: Plan,
    pub webhook_limit: Option<u32>,
    pub is_active: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserSettings {
    pub role: Role,
    pub is_active: bool,
    pub joined: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderSettings {
    pub name: ProviderName,
    pub is_active: bool,
    pub destination_url: Option<String>,
    /// Versions of the verifying secrets, and their ends.
    pub secrets: BTreeMap<u32, SecretSettings>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretSettings {
    pub set_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
}

impl Settings {
    /// Folds events that begin with the organization's first one.
    #[must_use]
    pub fn fold(events: &[RecordedEvent]) -> Self {
        let mut settings = Self::default();
        for recorded in events {
            match &recorded.event {
                Event::Organization(event) => settings.note_organization(event),
                Event::User(event) => settings.note_user(UserId::new(recorded.aggregate_id), event),
                Event::Provider(event) => {
                    settings.note_provider(ProviderId::new(recorded.aggregate_id), event, recorded.recorded_at);
                }
                Event::Destination(event) => {
                    settings.note_destination(DestinationId::new(recorded.aggregate_id), event);
                }
                Event::EmailClaim(_)
                | Event::Team(_)
                | Event::Access(_)
                | Event::Route(_)
                | Event::Webhook(_)
                | Event::Delivery(_)
                | Event::Usage(_)
                | Event::Retention(_) => {}
            }
        }
        settings
    }

    fn note_organization(&mut self, event: &OrganizationEvent) {
        if let OrganizationEvent::Created { name, slug, plan, webhook_limit } = event {
            self.organization = Some(OrganizationSettings {
                name: name.clone(),
                slug: slug.clone(),
                plan: *plan,
                webhook_limit: *webhook_limit,
                is_active: true,
            });
        }
        let Some(organization) = &mut self.organization else { return };
        match event {
            OrganizationEvent::Created { .. } => {}
            OrganizationEvent::Renamed { name } => organization.name.clone_from(name),
            OrganizationEvent::PlanChanged { plan, webhook_limit } => {
                (organization.plan, organization.webhook_limit) = (*plan, *webhook_limit);
            }
            OrganizationEvent::Activated {} => organization.is_active = true,
            OrganizationEvent::Deactivated {} => organization.is_active = false,
        }
    }

    fn note_user(&mut self, id: UserId, event: &UserEvent) {
        if let UserEvent::Registered { role, .. } | UserEvent::Invited { role, .. } = event {
            let joined = matches!(event, UserEvent::Registered { .. });
            self.users.insert(id, UserSettings { role: *role, is_active: true, joined });
        }
        let Some(user) = self.users.get_mut(&id) else { return };
        match event {
            UserEvent::RoleChanged { role } => user.role = *role,
            UserEvent::Activated {} => user.is_active = true,
            UserEvent::Deactivated {} => user.is_active = false,
            UserEvent::Joined {} => user.joined = true,
            UserEvent::Registered { .. }
            | UserEvent::Invited { .. }
            | UserEvent::SignedIn { .. }
            | UserEvent::SessionEnded { .. }
            | UserEvent::SessionsEnded {}
            | UserEvent::Erased {} => {}
        }
    }

    /// Of a provider's own destination.
    fn note_destination(&mut self, id: DestinationId, event: &DestinationEvent) {
        let own = self.providers.iter_mut().find(|(provider, _)| DestinationId::of_provider(**provider) == id);
        let Some((_, provider)) = own else { return };
        match event {
            DestinationEvent::Set(settings) => provider.destination_url = Some(settings.url.clone()),
            DestinationEvent::Deleted { .. } => provider.destination_url = None,
            DestinationEvent::SecretSet { .. } => {}
        }
    }

    fn note_provider(&mut self, id: ProviderId, event: &ProviderEvent, at: DateTime<Utc>) {
        if let ProviderEvent::Connected { provider_name, secret_version, .. } = event {
            let first = (*secret_version, SecretSettings { set_at: at, expires_at: None });
            let provider = ProviderSettings {
                name: *provider_name,
                is_active: true,
                destination_url: None,
                secrets: BTreeMap::from([first]),
            };
            self.providers.insert(id, provider);
        }
        let Some(provider) = self.providers.get_mut(&id) else { return };
        match event {
            ProviderEvent::SecretRotated { secret_version, previous_expire_at, .. } => {
                for secret in provider.secrets.values_mut() {
                    let expires_at = secret.expires_at.map_or(*previous_expire_at, |at| at.min(*previous_expire_at));
                    secret.expires_at = Some(expires_at);
                }
                provider.secrets.insert(*secret_version, SecretSettings { set_at: at, expires_at: None });
            }
            ProviderEvent::SecretAdded { secret_version, .. } => {
                provider.secrets.insert(*secret_version, SecretSettings { set_at: at, expires_at: None });
            }
            ProviderEvent::SecretRevoked { secret_version, expire_at } => {
                if let Some(secret) = provider.secrets.get_mut(secret_version) {
                    secret.expires_at = Some(secret.expires_at.map_or(*expire_at, |at| at.min(*expire_at)));
                }
            }
            ProviderEvent::Activated {} => provider.is_active = true,
            ProviderEvent::Deactivated {} => provider.is_active = false,
            ProviderEvent::Deleted {} => drop(self.providers.remove(&id)),
            ProviderEvent::Connected { .. }
            | ProviderEvent::SecretLabelled { .. }
            | ProviderEvent::RejectionsSuppressed { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use hookledger_aggregates::destination::DestinationSettings;
    use hookledger_aggregates::{EmailClaimId, Label, Metadata, OrganizationId, SecretId};
    use uuid::Uuid;

    use super::*;

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + chrono::Duration::minutes(minute)
    }

    fn recorded(position: i64, aggregate_id: Uuid, event: Event) -> RecordedEvent {
        let organization = OrganizationId::from_slug("acme");
        RecordedEvent {
            partition: organization.partition(),
            position,
            organization,
            aggregate_id,
            sequence: position,
            event,
            metadata: Metadata::default(),
            recorded_at: at(position),
        }
    }

    #[test]
    fn settings_are_what_their_events_up_to_then_say() {
        let (user, provider, secret) = (Uuid::from_u128(1), Uuid::from_u128(2), SecretId::new(Uuid::from_u128(3)));
        let settings = DestinationSettings {
            name: Label::new("Main"),
            url: "https://example.com/".to_owned(),
            timeout_seconds: None,
            concurrency: 1,
            header_names: vec![],
            headers: None,
            original_signature: false,
        };
        let (name, slug) = ("Acme".to_owned(), "acme".to_owned());
        let claim = EmailClaimId::new(Uuid::from_u128(4));
        let story = [
            (
                Uuid::nil(),
                Event::Organization(OrganizationEvent::Created {
                    name,
                    slug,
                    plan: Plan::Free,
                    webhook_limit: Some(9),
                }),
            ),
            (user, Event::User(UserEvent::Invited { role: Role::Member, email_claim_id: claim })),
            (
                provider,
                Event::Provider(ProviderEvent::Connected {
                    provider_name: ProviderName::Github,
                    secret_id: secret,
                    secret_version: 1,
                }),
            ),
            (
                DestinationId::of_provider(ProviderId::new(provider)).uuid(),
                Event::Destination(DestinationEvent::Set(settings)),
            ),
            (
                provider,
                Event::Provider(ProviderEvent::SecretRotated {
                    secret_id: secret,
                    secret_version: 2,
                    previous_expire_at: at(99),
                }),
            ),
            (user, Event::User(UserEvent::RoleChanged { role: Role::Admin })),
            (
                Uuid::nil(),
                Event::Organization(OrganizationEvent::PlanChanged { plan: Plan::Premium, webhook_limit: None }),
            ),
            (Uuid::nil(), Event::Organization(OrganizationEvent::Deactivated {})),
            (provider, Event::Provider(ProviderEvent::Deleted {})),
        ];
        let events: Vec<_> = (1..).zip(story).map(|(n, (id, event))| recorded(n, id, event)).collect();
        let up_to = |n: usize| Settings::fold(&events[..n]);
        assert_eq!(up_to(0), Settings::default());
        assert_eq!(
            up_to(2).users[&UserId::new(user)],
            UserSettings { role: Role::Member, is_active: true, joined: false }
        );
        let provider = |n: usize| up_to(n).providers.get(&ProviderId::new(provider)).cloned();
        assert_eq!(provider(3).unwrap().destination_url, None);
        let rotated = provider(6).unwrap();
        assert_eq!(rotated.destination_url.as_deref(), Some("https://example.com/"));
        let expiries: Vec<_> = rotated.secrets.iter().map(|(version, secret)| (*version, secret.expires_at)).collect();
        assert_eq!(expiries, [(1, Some(at(99))), (2, None)]);
        assert_eq!(up_to(6).users[&UserId::new(user)].role, Role::Admin);
        let organization = |n: usize| up_to(n).organization.unwrap();
        assert_eq!(
            (organization(6).plan, organization(6).webhook_limit, organization(6).is_active),
            (Plan::Free, Some(9), true)
        );
        assert_eq!(
            (organization(8).plan, organization(8).webhook_limit, organization(8).is_active),
            (Plan::Premium, None, false)
        );
        assert_eq!(provider(9), None);
    }
}
