//! The recorded event: its decoded form, and its encoding in the log.
//!
//! An event is stored as its type, its version and a payload with only its fields. serde's external tag
//! (`{"webhook.received": {…}}`) is added when reading and removed when writing.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, EnumAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::access::AccessEvent;
use crate::delivery::DeliveryEvent;
use crate::destination::DestinationEvent;
use crate::email_claim::EmailClaimEvent;
use crate::organization::OrganizationEvent;
use crate::provider::ProviderEvent;
use crate::retention::RetentionEvent;
use crate::route::RouteEvent;
use crate::team::TeamEvent;
use crate::upcast::upcast;
use crate::usage::UsageEvent;
use crate::user::UserEvent;
use crate::webhook::WebhookEvent;
use crate::{Label, OrganizationId, Partition, SessionId, UserId};

/// An event that the log can store, of any aggregate.
pub trait Stored: Serialize + DeserializeOwned {
    /// The aggregate type of its stream.
    const AGGREGATE: &'static str;
    /// The stored name of this event, such as `webhook.received`.
    fn stored_type(&self) -> &'static str;
    /// The version that is written today, a whole number.
    fn stored_version(&self) -> &'static str;
}

/// The event's fields as JSON text, without the tag.
pub fn payload<E: Stored>(event: &E) -> Result<String, serde_json::Error> {
    let mut tagged = serde_json::to_string(event)?;
    // `{"<type>":<payload>}`: the part before the payload has a known length.
    tagged.drain(..event.stored_type().len() + 4);
    tagged.pop();
    Ok(tagged)
}

/// An event that could not be decoded. The reader has to stop, because skipping an event would lose history.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The aggregate type, which no aggregate of this release has.
    #[error("no aggregate is of type {0:?}")]
    UnknownAggregate(String),
    /// The event type or its version is unknown, as are events of a later release.
    #[error("{event_type} version {version} is not known to this release")]
    UnknownVersion {
        /// The type in the log.
        event_type: String,
        /// The version in the log.
        version: String,
    },
    /// The payload is no JSON, or its fields are not those of the type and version.
    #[error("{event_type} does not have the fields that it should: {source}")]
    Payload {
        /// The type in the log.
        event_type: String,
        /// The error of the JSON parser.
        source: serde_json::Error,
    },
    /// A column besides the payload holds an impossible value.
    #[error("{table}.{column} holds {value:?}, which is not possible")]
    Column {
        /// The table.
        table: &'static str,
        /// Its column.
        column: &'static str,
        /// The value, as text.
        value: String,
    },
}

/// Decodes an event of the log; upcasts older versions.
///
/// # Errors
/// [`DecodeError`] if the type, version or fields are unknown.
pub fn decode<E: Stored>(event_type: &str, version: &str, payload: &RawValue) -> Result<E, DecodeError> {
    let upcasted = upcast(event_type, version, payload)?;
    let text = upcasted.as_deref().unwrap_or(payload).get();
    let mut json = serde_json::Deserializer::from_str(text);
    E::deserialize(Tagged { tag: event_type, json: &mut json })
        .map_err(|source| DecodeError::Payload { event_type: event_type.to_owned(), source })
}

/// Presents `(tag, payload)` to serde as the externally tagged enum that it expects.
struct Tagged<'a, R> {
    tag: &'a str,
    json: &'a mut serde_json::Deserializer<R>,
}

impl<'de, R: serde_json::de::Read<'de>> Deserializer<'de> for Tagged<'_, R> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_enum(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'a, 'de, R: serde_json::de::Read<'de>> EnumAccess<'de> for Tagged<'a, R> {
    type Error = serde_json::Error;
    type Variant = Payload<'a, R>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), Self::Error> {
        let tag: StrDeserializer<'_, Self::Error> = serde::de::IntoDeserializer::into_deserializer(self.tag);
        Ok((seed.deserialize(tag)?, Payload(self.json)))
    }
}

struct Payload<'a, R>(&'a mut serde_json::Deserializer<R>);

impl<'de, R: serde_json::de::Read<'de>> VariantAccess<'de> for Payload<'_, R> {
    type Error = serde_json::Error;

    fn unit_variant(self) -> Result<(), Self::Error> {
        serde::de::IgnoredAny::deserialize(self.0).map(drop)
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Self::Error> {
        seed.deserialize(self.0)
    }
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Self::Error> {
        self.0.deserialize_tuple(len, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_struct("", fields, visitor)
    }
}

/// Any event of any aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Of a customer company.
    Organization(OrganizationEvent),
    /// Of a person who signs in.
    User(UserEvent),
    /// Of the claim on an email address.
    EmailClaim(EmailClaimEvent),
    /// Of the admins of an organization.
    Team(TeamEvent),
    /// A fact about a person, for auditors.
    Access(AccessEvent),
    /// Of an organization's connection to a service.
    Provider(ProviderEvent),
    /// Of where webhooks are sent.
    Destination(DestinationEvent),
    /// Of a way from a provider to a destination.
    Route(RouteEvent),
    /// Of a webhook, or of the streams that support its deduplication.
    Webhook(WebhookEvent),
    /// Of a webhook on one route.
    Delivery(DeliveryEvent),
    /// Of the warnings about a monthly limit.
    Usage(UsageEvent),
    /// Of removed requests.
    Retention(RetentionEvent),
}

impl Event {
    /// Every event type, with the version that is written today.
    pub fn types() -> impl Iterator<Item = (&'static str, u32)> {
        [
            OrganizationEvent::TYPES,
            UserEvent::TYPES,
            EmailClaimEvent::TYPES,
            TeamEvent::TYPES,
            AccessEvent::TYPES,
            ProviderEvent::TYPES,
            DestinationEvent::TYPES,
            RouteEvent::TYPES,
            WebhookEvent::TYPES,
            DeliveryEvent::TYPES,
            UsageEvent::TYPES,
            RetentionEvent::TYPES,
        ]
        .into_iter()
        .flatten()
        .copied()
    }

    /// The stored form: aggregate type, event type, and the fields as JSON text.
    pub fn stored(&self) -> Result<(&'static str, &'static str, String), serde_json::Error> {
        fn of<E: Stored>(event: &E) -> Result<(&'static str, &'static str, String), serde_json::Error> {
            Ok((E::AGGREGATE, event.stored_type(), payload(event)?))
        }
        match self {
            Self::Organization(event) => of(event),
            Self::User(event) => of(event),
            Self::EmailClaim(event) => of(event),
            Self::Team(event) => of(event),
            Self::Access(event) => of(event),
            Self::Provider(event) => of(event),
            Self::Destination(event) => of(event),
            Self::Route(event) => of(event),
            Self::Webhook(event) => of(event),
            Self::Delivery(event) => of(event),
            Self::Usage(event) => of(event),
            Self::Retention(event) => of(event),
        }
    }

    /// Decodes an event of any aggregate.
    ///
    /// # Errors
    /// [`DecodeError`] if the aggregate, type, version or fields are unknown.
    pub fn decode(
        aggregate_type: &str,
        event_type: &str,
        version: &str,
        payload: &RawValue,
    ) -> Result<Self, DecodeError> {
        match aggregate_type {
            WebhookEvent::AGGREGATE => decode(event_type, version, payload).map(Self::Webhook),
            DeliveryEvent::AGGREGATE => decode(event_type, version, payload).map(Self::Delivery),
            ProviderEvent::AGGREGATE => decode(event_type, version, payload).map(Self::Provider),
            DestinationEvent::AGGREGATE => decode(event_type, version, payload).map(Self::Destination),
            RouteEvent::AGGREGATE => decode(event_type, version, payload).map(Self::Route),
            OrganizationEvent::AGGREGATE => decode(event_type, version, payload).map(Self::Organization),
            UserEvent::AGGREGATE => decode(event_type, version, payload).map(Self::User),
            EmailClaimEvent::AGGREGATE => decode(event_type, version, payload).map(Self::EmailClaim),
            TeamEvent::AGGREGATE => decode(event_type, version, payload).map(Self::Team),
            AccessEvent::AGGREGATE => decode(event_type, version, payload).map(Self::Access),
            UsageEvent::AGGREGATE => decode(event_type, version, payload).map(Self::Usage),
            RetentionEvent::AGGREGATE => decode(event_type, version, payload).map(Self::Retention),
            other => Err(DecodeError::UnknownAggregate(other.to_owned())),
        }
    }
}

/// An event of the log, with its position and metadata.
#[derive(Clone, Debug)]
pub struct RecordedEvent {
    /// The part of the log that it is in; the organization determines it.
    pub partition: Partition,
    /// 1, 2, 3… within the partition, in commit order, without gaps.
    pub position: i64,
    /// The organization that it belongs to.
    pub organization: OrganizationId,
    /// The stream that it belongs to. The aggregate type is that of `event`.
    pub aggregate_id: Uuid,
    /// 1, 2, 3… within the aggregate's stream.
    pub sequence: i64,
    /// The event itself, in the version that is written today.
    pub event: Event,
    /// Who caused it, and from where.
    pub metadata: Metadata,
    /// When it was appended; never earlier than the event before it in the partition.
    pub recorded_at: DateTime<Utc>,
}

/// The cause of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Actor {
    /// Hookledger itself: workers, the first start, the operator's commands.
    #[default]
    System,
    /// The third-party service that sent the webhook.
    Sender,
    /// A person who was signed in.
    User(UserId),
}

/// Circumstances of an event. Stored as a flat JSON object of strings, as cqrs-es requires.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Who caused the event.
    pub actor: Actor,
    /// The client's address, if a request caused the event.
    pub client: Option<String>,
    /// The client's user agent.
    pub agent: Option<Label>,
    /// The session of the person who caused it.
    pub session: Option<SessionId>,
}

impl Metadata {
    /// Metadata of a webhook's sender at that address.
    #[must_use]
    pub fn sender(client: String) -> Self {
        Self { actor: Actor::Sender, client: Some(client), ..Self::default() }
    }

    /// In the form of the log, a JSON object. Its keys are ordered, so equal metadata is equal text.
    ///
    /// # Errors
    /// If serde cannot write it, which is a defect.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&self.to_map().into_iter().collect::<BTreeMap<_, _>>())
    }

    /// In the form of cqrs-es.
    #[must_use]
    pub fn to_map(&self) -> HashMap<String, String> {
        let actor = match self.actor {
            Actor::System => None,
            Actor::Sender => Some("sender".to_owned()),
            Actor::User(user) => Some(format!("user:{user}")),
        };
        let agent = self.agent.as_ref().map(|agent| agent.as_str().to_owned());
        let session = self.session.map(|session| session.to_string());
        [("actor", actor), ("client", self.client.clone()), ("agent", agent), ("session", session)]
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect()
    }

    /// From the log; an unknown actor becomes the system.
    #[must_use]
    pub fn from_map(map: &HashMap<String, String>) -> Self {
        let actor = match map.get("actor").map(|actor| actor.split_once(':').unwrap_or((actor, ""))) {
            Some(("user", id)) => id.parse().map_or(Actor::System, Actor::User),
            Some(("sender", _)) => Actor::Sender,
            _ => Actor::System,
        };
        Self {
            actor,
            client: map.get("client").cloned(),
            agent: map.get("agent").map(|agent| Label::new(agent)),
            session: map.get("session").and_then(|id| id.parse().ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn golden(event_type: &str, version: u32) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{event_type}.v{version}.json"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn aggregate_of(event_type: &str) -> &str {
        event_type.split('.').next().unwrap()
    }

    #[test]
    fn every_version_ever_written_is_still_read() {
        for (event_type, current) in Event::types() {
            for version in 1..=current {
                let stored = RawValue::from_string(golden(event_type, version).trim().to_owned()).unwrap();
                let event = Event::decode(aggregate_of(event_type), event_type, &version.to_string(), &stored);
                event.unwrap_or_else(|error| panic!("{event_type} v{version}: {error}"));
            }
        }
    }

    #[test]
    fn what_is_written_today_is_what_the_golden_file_says() {
        for (event_type, current) in Event::types() {
            let text = golden(event_type, current);
            let stored = RawValue::from_string(text.trim().to_owned()).unwrap();
            let event = Event::decode(aggregate_of(event_type), event_type, &current.to_string(), &stored).unwrap();
            assert_eq!(event.stored().unwrap(), (aggregate_of(event_type), event_type, text.trim().to_owned()));
        }
    }

    #[test]
    fn an_unknown_event_is_an_error_and_not_skipped() {
        let nothing = RawValue::from_string("{}".to_owned()).unwrap();
        assert!(Event::decode("webhook", "webhook.vanished", "1", &nothing).is_err());
        assert!(Event::decode("comet", "comet.seen", "1", &nothing).is_err());
    }

    #[test]
    fn metadata_survives_its_storage() {
        let metadata = Metadata {
            actor: Actor::User(UserId::new(Uuid::from_u128(7))),
            client: Some("192.0.2.1".to_owned()),
            agent: Some(Label::new("curl/8")),
            session: Some(SessionId::new(Uuid::from_u128(8))),
        };
        assert_eq!(Metadata::from_map(&metadata.to_map()), metadata);
        assert!(metadata.to_json().unwrap().starts_with(r#"{"actor":"user:"#));
        assert_eq!(Metadata::from_map(&HashMap::new()), Metadata::default());
    }
}
