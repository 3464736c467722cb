//! `/graphql` over WebSocket, in the protocol `graphql-transport-ws`:
//! <https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md>.
//!
//! async-graphql-warp speaks the protocol, on two halves that a [`guard`] holds the other ends of. The guard bounds
//! everything that a client can make grow.

mod close;
mod guard;
mod ids;
mod messages;
mod operations;
mod places;

use std::net::IpAddr;
use std::sync::Arc;

use async_graphql::http::WebSocketProtocols;
use async_graphql::{Data, Error};
use async_graphql_warp::GraphQLWebSocket;
use futures::StreamExt as _;
use futures::channel::mpsc;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::sync::oneshot;
use warp::reply::Response;
use warp::ws::{WebSocket, Ws};
use warp::{Filter, Reply as _};

pub use places::Sockets;

use super::{Services, error, person, share, with};
use crate::identity::Client;
use close::Close;
use guard::Halves;
use operations::Operations;
use places::Anteroom;

const PROTOCOL: &str = "graphql-transport-ws";
/// Maximum size of a message in bytes: a query and its variables.
const MAX_MESSAGE: usize = 128 << 10;
/// Messages that each half holds, besides the one that every sender may always send.
const NONE_WAITING: usize = 0;

pub(super) fn route(services: Arc<Services>) -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    warp::path!("graphql")
        .and(warp::ws())
        .and(warp::header::headers_cloned())
        .and(person())
        .and(share())
        .and(with(services))
        .map(|ws: Ws, headers: HeaderMap, client: Client, share, services: Arc<Services>| {
            upgrade(ws, &headers, client, share, services)
        })
}

/// Browsers send the origin of the page that opens a socket; only our own is accepted. Other clients have no
/// origin, and need a token like everybody.
fn upgrade(ws: Ws, headers: &HeaderMap, client: Client, share: Option<IpAddr>, services: Arc<Services>) -> Response {
    let origin = headers.get(header::ORIGIN);
    if origin.is_some_and(|origin| !is_ours(origin, &services.app.base_url)) {
        let sentence = "This page isn't allowed to open a WebSocket here.";
        return error(StatusCode::FORBIDDEN, "origin_not_allowed", sentence).into_response();
    }
    let anteroom = services.sockets.wait(share);
    let speaks = speaks(headers);
    let ws = ws.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    let mut response = ws.on_upgrade(move |socket| serve(socket, speaks, client, services, anteroom)).into_response();
    if speaks {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    response
}

/// Whether the client offers our protocol. `async_graphql_warp::graphql_protocol` would choose the older one where
/// a client offers both, or none.
fn speaks(headers: &HeaderMap) -> bool {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    offered.flat_map(|value| value.split(',')).any(|protocol| protocol.trim() == PROTOCOL)
}

fn is_ours(origin: &HeaderValue, base_url: &str) -> bool {
    // An origin is a URL's scheme and authority, without a path.
    let (scheme, rest) = base_url.split_once("://").unwrap_or_default();
    let authority = rest.split('/').next().unwrap_or_default();
    origin.to_str().is_ok_and(|origin| origin.eq_ignore_ascii_case(&format!("{scheme}://{authority}")))
}

async fn serve(socket: WebSocket, speaks: bool, client: Client, services: Arc<Services>, anteroom: Anteroom) {
    metrics::gauge!("hookledger_sockets").increment(1.0);
    if speaks {
        Box::pin(converse(socket, client, services, anteroom)).await;
    } else {
        guard::close(socket, Close::Subprotocol).await;
    }
    metrics::gauge!("hookledger_sockets").decrement(1.0);
}

/// Runs the protocol on halves that the guard holds.
async fn converse(socket: WebSocket, client: Client, services: Arc<Services>, anteroom: Anteroom) {
    let (heard, received) = mpsc::channel(NONE_WAITING);
    let (says, said) = mpsc::channel(NONE_WAITING);
    let (viewer, entered) = oneshot::channel();
    let operations = Operations::new(services.schema.clone(), services.app.clone());
    let halves = Halves { heard, said, viewer, on_the_way: operations.on_the_way() };
    let protocol = GraphQLWebSocket::new_with_pair(says, received.map(Ok), operations, WebSocketProtocols::GraphQLWS)
        .on_connection_init(|_payload| async {
            // The guard lets users in before the protocol hears of them.
            let mut data = Data::default();
            data.insert(entered.await.map_err(|_| Error::new("nobody was let in"))?);
            Ok(data)
        })
        .on_ping(|_data, payload| async { Ok(payload) });
    Box::pin(guard::serve(socket, services, client, anteroom, halves, protocol.serve())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_ours_without_its_path() {
        let is_ours = |origin: &'static str, base| is_ours(&HeaderValue::from_static(origin), base);
        assert!(is_ours("https://hooks.example.org", "https://hooks.example.org/app"));
        assert!(is_ours("http://localhost:8080", "http://localhost:8080"));
        for foreign in ["null", "", "http://localhost", "http://localhost:8080.evil.org", "https://localhost:8080"] {
            assert!(!is_ours(foreign, "http://localhost:8080"), "{foreign}");
        }
    }

    #[test]
    fn the_protocol_is_spoken_with_those_who_offer_it() {
        let speaks = |offers: &[&'static str]| {
            let offers = offers.iter().map(|offer| (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offer)));
            speaks(&offers.collect())
        };
        assert!(speaks(&[PROTOCOL]) && speaks(&["graphql-ws, graphql-transport-ws"]) && speaks(&["x", PROTOCOL]));
        assert!(!speaks(&[]) && !speaks(&["graphql-ws"]) && !speaks(&["Graphql-Transport-WS"]));
        assert_eq!(WebSocketProtocols::GraphQLWS.sec_websocket_protocol(), PROTOCOL);
    }
}
