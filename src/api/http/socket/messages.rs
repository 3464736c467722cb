//! The messages of the protocol, as far as the guard has to read and write them. The rest is async-graphql's.

use async_graphql::ServerError;
use serde::{Deserialize, Serialize};
use warp::ws::Message;

use crate::api::graphql::Parameters;

/// A message of the client. async-graphql takes more than these, and other codes mean "invalid" there.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ClientMessage {
    ConnectionInit {
        payload: Option<InitPayload>,
    },
    Ping {},
    Pong {},
    Subscribe {
        id: String,
        #[serde(rename = "payload")]
        _payload: Parameters,
    },
    Complete {
        id: String,
    },
}

/// The token in the client's message: in the form of HTTP's header, or bare.
#[derive(Default, Deserialize)]
pub(super) struct InitPayload {
    #[serde(alias = "Authorization")]
    authorization: Option<String>,
    token: Option<String>,
}

impl InitPayload {
    pub(super) fn token(&self) -> Option<&str> {
        let bearer = self.authorization.as_deref().and_then(|value| value.split_once(' '));
        let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        bearer.or(self.token.as_deref())
    }
}

/// Of a message that async-graphql wrote: its kind, and the operation that it is about.
#[derive(Deserialize)]
pub(super) struct Head<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'a str,
    pub(super) id: Option<String>,
}

/// A message that async-graphql never writes.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ServerMessage<'a> {
    Ping {},
    Error { id: &'a str, payload: &'a [ServerError] },
}

impl ServerMessage<'_> {
    pub(super) fn message(&self) -> Message {
        // Serializing our own plain types cannot fail.
        Message::text(serde_json::to_string(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::http::ClientMessage as OfAsyncGraphql;

    use super::*;

    #[test]
    fn what_is_not_the_protocol_is_no_message() {
        let parse = serde_json::from_str::<ClientMessage>;
        for good in [
            r#"{"type":"connection_init"}"#,
            r#"{"type":"connection_init","payload":{"authorization":"Bearer x","more":1}}"#,
            r#"{"type":"ping"}"#,
            r#"{"type":"ping","payload":{"a":1}}"#,
            r#"{"type":"pong"}"#,
            r#"{"type":"complete","id":"1"}"#,
            r#"{"type":"subscribe","id":"1","payload":{"query":"{ __typename }"}}"#,
            r#"{"type":"subscribe","id":"1","payload":{"query":"","operationName":null,"variables":null,"extensions":null}}"#,
            r#"{"type":"subscribe","id":"1","payload":{"query":"","variables":{"a b":[1.5]},"extensions":{"a":{}},"x":1}}"#,
        ] {
            assert!(parse(good).is_ok(), "{good}");
            assert!(OfAsyncGraphql::from_bytes(good).is_ok(), "what passes the guard is understood: {good}");
        }
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"type":"start","id":"1","payload":{"query":"{ __typename }"}}"#,
            r#"{"type":"connection_terminate"}"#,
            r#"{"type":"subscribe","id":"1"}"#,
            r#"{"type":"subscribe","id":"1","payload":{}}"#,
            r#"{"type":"complete"}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
