//! Opaque ids and cursors. A node id carries its kind and its organization, so that every lookup
//! has the organization first; a cursor is bound to the list that it is from, and to its organization.

use async_graphql::{Error, ID};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use hookledger_aggregates::{OrganizationId, ProviderId, SessionId, UserId, WebhookId};
use uuid::Uuid;

use super::errors::Code;

/// What a node id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeId {
    Organization(OrganizationId),
    Provider(OrganizationId, ProviderId),
    Webhook(OrganizationId, WebhookId),
    User(OrganizationId, UserId),
    Session(OrganizationId, SessionId),
}

impl NodeId {
    pub(super) fn encode(self) -> ID {
        let (kind, organization, id) = match self {
            Self::Organization(id) => (b'o', id, id.uuid()),
            Self::Provider(organization, id) => (b'p', organization, id.uuid()),
            Self::Webhook(organization, id) => (b'w', organization, id.uuid()),
            Self::User(organization, id) => (b'u', organization, id.uuid()),
            Self::Session(organization, id) => (b's', organization, id.uuid()),
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(organization.uuid().as_bytes());
        bytes.extend_from_slice(id.as_bytes());
        ID(URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(super) fn decode(id: &ID) -> Option<Self> {
        let bytes: [u8; 33] = URL_SAFE_NO_PAD.decode(id.as_bytes()).ok()?.try_into().ok()?;
        let organization = OrganizationId::new(Uuid::from_slice(&bytes[1..17]).ok()?);
        let id = Uuid::from_slice(&bytes[17..]).ok()?;
        match bytes[0] {
            b'o' if organization.uuid() == id => Some(Self::Organization(organization)),
            b'p' => Some(Self::Provider(organization, ProviderId::new(id))),
            b'w' => Some(Self::Webhook(organization, WebhookId::new(id))),
            b'u' => Some(Self::User(organization, UserId::new(id))),
            b's' => Some(Self::Session(organization, SessionId::new(id))),
            _ => None,
        }
    }
}

/// A list that has cursors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Organizations,
    Webhooks,
    AuditLog,
    Users,
    Providers,
}

impl List {
    const fn tag(self) -> u8 {
        match self {
            Self::Organizations => b'o',
            Self::Webhooks => b'w',
            Self::AuditLog => b'a',
            Self::Users => b'u',
            Self::Providers => b'p',
        }
    }
}

/// A place in a list: of which organization (nil for lists across them), and after which key.
pub(super) fn encode_cursor(list: List, organization: OrganizationId, time: DateTime<Utc>, key: &[u8]) -> String {
    let mut bytes = vec![list.tag()];
    bytes.extend_from_slice(organization.uuid().as_bytes());
    bytes.extend_from_slice(&time.timestamp_micros().to_be_bytes());
    bytes.extend_from_slice(key);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The key of a cursor of that organization's list.
pub(super) fn decode_cursor<const N: usize>(
    list: List,
    organization: OrganizationId,
    cursor: &str,
) -> Result<(DateTime<Utc>, [u8; N]), Error> {
    let bad = || Code::BadUserInput.error("this cursor is not from this list");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad())?;
    if bytes.len() != 25 + N || bytes[0] != list.tag() || bytes[1..17] != *organization.uuid().as_bytes() {
        return Err(bad());
    }
    let micros: [u8; 8] = bytes[17..25].try_into().map_err(|_| bad())?;
    let time = DateTime::from_timestamp_micros(i64::from_be_bytes(micros)).ok_or_else(bad)?;
    Ok((time, bytes[25..].try_into().map_err(|_| bad())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_their_kind_and_organization() {
        let organization = OrganizationId::from_slug("a");
        let id = NodeId::Webhook(organization, WebhookId::new(Uuid::from_u128(7)));
        assert_eq!(NodeId::decode(&id.encode()), Some(id));
        for bad in ["", "x", "AAAA", &URL_SAFE_NO_PAD.encode([b'z'; 33]), &URL_SAFE_NO_PAD.encode([b'o'; 34])] {
            assert_eq!(NodeId::decode(&ID(bad.to_owned())), None);
        }
    }

    #[test]
    fn a_cursor_of_another_organization_or_list_is_refused() {
        let (ours, theirs) = (OrganizationId::from_slug("a"), OrganizationId::from_slug("b"));
        let at = DateTime::from_timestamp_micros(1_234_567).unwrap();
        let cursor = encode_cursor(List::Webhooks, theirs, at, &7_i64.to_be_bytes());
        assert!(decode_cursor::<8>(List::Webhooks, ours, &cursor).is_err());
        assert!(decode_cursor::<8>(List::AuditLog, theirs, &cursor).is_err());
        assert_eq!(decode_cursor::<8>(List::Webhooks, theirs, &cursor).unwrap(), (at, 7_i64.to_be_bytes()));
    }
}
