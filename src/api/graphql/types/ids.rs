//! Opaque IDs and cursors. A node ID contains its kind and its organization, so that every lookup has the
//! organization first; a cursor is bound to its list, its organization, and the order of the list.

use async_graphql::{Error, ID};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Datelike as _, Utc};
use hookledger_aggregates::{OrganizationId, ProviderId, SessionId, UserId, WebhookId};
use hookledger_projections::order::{Direction, Field, Kind, Value};
use hookledger_projections::{Order, Place};
use uuid::Uuid;

use crate::api::graphql::errors::Code;

/// Maximum length of a text in a cursor in bytes: that of 255 characters, which is the longest name.
const MAX_TEXT: usize = 4 * 255;

/// The object that a node ID identifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeId {
    Organization(OrganizationId),
    Provider(OrganizationId, ProviderId),
    Webhook(OrganizationId, WebhookId),
    User(OrganizationId, UserId),
    Session(OrganizationId, SessionId),
}

impl NodeId {
    pub(crate) fn encode(self) -> ID {
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

    pub(crate) fn decode(id: &ID) -> Option<Self> {
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

/// A list with cursors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
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

/// A cursor: of an organization (nil for lists across them), and after a key.
pub(crate) fn encode_cursor(list: List, organization: OrganizationId, time: DateTime<Utc>, key: &[u8]) -> String {
    let mut bytes = vec![list.tag()];
    bytes.extend_from_slice(organization.uuid().as_bytes());
    bytes.extend_from_slice(&time.timestamp_micros().to_be_bytes());
    bytes.extend_from_slice(key);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The key of a cursor of that organization's list.
pub(crate) fn decode_cursor<const N: usize>(
    list: List,
    organization: OrganizationId,
    cursor: &str,
) -> Result<(DateTime<Utc>, [u8; N]), Error> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| foreign())?;
    if bytes.len() != 25 + N || bytes[0] != list.tag() || bytes[1..17] != *organization.uuid().as_bytes() {
        return Err(foreign());
    }
    let time = time_of(&bytes[17..25]).ok_or_else(foreign)?;
    Ok((time, bytes[25..].try_into().map_err(|_| foreign())?))
}

/// A cursor of a sorted list.
pub(crate) fn encode_place<F: Field>(
    list: List,
    organization: OrganizationId,
    order: Order<F>,
    place: &Place,
) -> String {
    let mut bytes = beginning(list, organization, order);
    bytes.extend_from_slice(place.id.as_bytes());
    match &place.value {
        None => {}
        Some(Value::Time(time)) => {
            bytes.push(b'=');
            bytes.extend_from_slice(&time.timestamp_micros().to_be_bytes());
        }
        Some(Value::Text(text)) => {
            bytes.push(b'=');
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The key of a cursor of that organization's list with that order.
pub(crate) fn decode_place<F: Field>(
    list: List,
    organization: OrganizationId,
    order: Order<F>,
    cursor: &str,
) -> Result<Place, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| foreign())?;
    let place = bytes.strip_prefix(beginning(list, organization, order).as_slice()).ok_or_else(foreign)?;
    let (id, value) = place.split_first_chunk().ok_or_else(foreign)?;
    let value = match (value, order.field.column().kind) {
        ([], _) => None,
        ([b'=', time @ ..], Kind::Time) => Some(Value::Time(time_of(time).ok_or_else(foreign)?)),
        ([b'=', text @ ..], Kind::Text) => Some(Value::Text(text_of(text).ok_or_else(foreign)?)),
        _ => return Err(foreign()),
    };
    Ok(Place { value, id: Uuid::from_bytes(*id) })
}

/// The common prefix of all cursors of a list with one order, which no other list or order shares.
fn beginning<F: Field>(list: List, organization: OrganizationId, order: Order<F>) -> Vec<u8> {
    let direction = match order.direction {
        Direction::Ascending => b'a',
        Direction::Descending => b'd',
    };
    let mut bytes = vec![list.tag()];
    bytes.extend_from_slice(organization.uuid().as_bytes());
    bytes.extend_from_slice(&[order.field.column().tag, direction]);
    bytes
}

fn time_of(bytes: &[u8]) -> Option<DateTime<Utc>> {
    let time = DateTime::from_timestamp_micros(i64::from_be_bytes(bytes.try_into().ok()?))?;
    // chrono has times that PostgreSQL does not.
    (1..=9999).contains(&time.year()).then_some(time)
}

/// PostgreSQL's text cannot contain NUL.
fn text_of(bytes: &[u8]) -> Option<String> {
    let good = bytes.len() <= MAX_TEXT && !bytes.contains(&0);
    good.then(|| String::from_utf8(bytes.to_vec()).ok()).flatten()
}

fn foreign() -> Error {
    Code::BadUserInput.error("This cursor belongs to another list, or to another sort order.")
}

#[cfg(test)]
mod tests {
    use hookledger_projections::users::UserField;

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

    #[test]
    fn a_cursor_of_a_sorted_list_is_bound_to_its_order() {
        let here = OrganizationId::PLATFORM;
        let order = |field, direction| Order { field, direction };
        let by_email = order(UserField::Email, Direction::Ascending);
        let place = |value| Place { value, id: Uuid::from_u128(7) };
        let at = DateTime::from_timestamp_micros(1_234_567).unwrap();
        for (order, value) in [
            (by_email, Some(Value::Text("é@example.org".to_owned()))),
            (by_email, Some(Value::Text(String::new()))),
            (by_email, None),
            (order(UserField::LastLoginAt, Direction::Descending), Some(Value::Time(at))),
        ] {
            let cursor = encode_place(List::Users, here, order, &place(value.clone()));
            assert_eq!(decode_place(List::Users, here, order, &cursor).unwrap(), place(value));
        }
        let cursor =
            |value: &str| encode_place(List::Users, here, by_email, &place(Some(Value::Text(value.to_owned()))));
        let refused = |list, organization, order, cursor: &str| {
            assert!(decode_place(list, organization, order, cursor).is_err());
        };
        refused(List::Users, here, order(UserField::Email, Direction::Descending), &cursor("a"));
        refused(List::Users, here, order(UserField::CreatedAt, Direction::Ascending), &cursor("a"));
        refused(List::Users, OrganizationId::from_slug("a"), by_email, &cursor("a"));
        refused(List::Organizations, here, by_email, &cursor("a"));
        refused(List::Users, here, by_email, &cursor("a\0"));
        refused(List::Users, here, by_email, &cursor(&"a".repeat(MAX_TEXT + 1)));
        refused(List::Users, here, by_email, &cursor("a")[..20]);
        assert!(decode_place(List::Users, here, by_email, &cursor(&"a".repeat(MAX_TEXT))).is_ok());
    }
}
