//! `/graphql` over WebSocket, in the protocol `graphql-transport-ws`:
//! <https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md>.
//!
//! Everything a client can make grow has a bound: sockets, operations of a socket, bytes of a message,
//! messages that wait to be sent, the time to say who it is, and silence.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_graphql::Response as GraphqlResponse;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument as _;
use uuid::Uuid;
use warp::reply::Response;
use warp::ws::{Message, WebSocket, Ws};
use warp::{Filter, Reply as _};

use super::session::{NoViewer, viewer};
use super::{Services, error, person, share, with};
use crate::api::graphql::{Code, Parameters, Viewer, was_refused, with_codes, with_viewer};
use crate::identity::Client;

const PROTOCOL: &str = "graphql-transport-ws";
/// Bytes of a message: a query and its variables.
const MAX_MESSAGE: usize = 128 << 10;
/// Sockets of this node, and of one user on it.
const MAX_SOCKETS: usize = 2_000;
const MAX_SOCKETS_PER_USER: usize = 20;
/// Sockets that have not said who they are, of this node and of one client. A newcomer takes the place of the
/// one that has waited longest.
const MAX_STRANGERS: usize = 512;
const MAX_STRANGERS_PER_CLIENT: usize = 32;
/// Operations of one socket at once.
const MAX_OPERATIONS: usize = 32;
/// Messages that wait to be sent; then operations wait, and watchers miss changes.
const MAX_WAITING: usize = 64;
/// How long a client may take to say who it is.
const INIT_LIMIT: Duration = Duration::from_secs(5);
/// Between looks at the session, and pings.
const CHECK: Duration = Duration::from_secs(3);
const PING: Duration = Duration::from_secs(20);
/// A client that has not been heard for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a client may take to take a message.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// How a socket is closed, by the protocol's codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    GoingAway,
    Silent,
    TooLarge,
    BadMessage,
    Unauthorized,
    SessionEnded,
    Forbidden,
    Subprotocol,
    InitTimeout,
    DuplicateId,
    TooManyInits,
    TooManySockets,
    Unavailable,
    /// Another stranger has its place.
    GaveWay,
}

impl Close {
    const fn frame(self) -> (u16, &'static str) {
        match self {
            Self::GoingAway => (1001, "The server is stopping"),
            Self::Silent => (1001, "Nothing was heard for too long"),
            Self::TooLarge => (1009, "The message is too large"),
            Self::Unavailable | Self::GaveWay => (1013, "Try again later"),
            Self::BadMessage => (4400, "Invalid message"),
            Self::Unauthorized => (4401, "Unauthorized"),
            Self::SessionEnded => (4401, "The session has ended"),
            Self::Forbidden => (4403, "Forbidden"),
            Self::Subprotocol => (4406, "Subprotocol not acceptable"),
            Self::InitTimeout => (4408, "Connection initialisation timeout"),
            Self::DuplicateId => (4409, "Subscriber already exists"),
            Self::TooManyInits => (4429, "Too many initialisation requests"),
            Self::TooManySockets => (4429, "Too many connections of one user"),
        }
    }
}

/// The sockets of this node.
#[derive(Clone)]
pub struct Sockets {
    stop: CancellationToken,
    all: Arc<Semaphore>,
    users: Arc<Mutex<HashMap<Uuid, usize>>>,
    strangers: Arc<Mutex<Strangers>>,
}

/// The sockets that have not said who they are, in the order in which they came.
#[derive(Default)]
struct Strangers {
    next: u64,
    waiting: BTreeMap<u64, (Option<IpAddr>, CancellationToken)>,
}

impl Strangers {
    /// One more has come, and another gives way where there are too many.
    fn enter(&mut self, client: Option<IpAddr>) -> (u64, CancellationToken) {
        let of_client = |(_, (other, _)): &(&u64, &(Option<IpAddr>, CancellationToken))| *other == client;
        let too_many_of_client =
            client.is_some() && self.waiting.iter().filter(of_client).count() >= MAX_STRANGERS_PER_CLIENT;
        let gives_way = if too_many_of_client {
            self.waiting.iter().find(of_client).map(|(id, _)| *id)
        } else {
            self.waiting.keys().next().copied().filter(|_| self.waiting.len() >= MAX_STRANGERS)
        };
        if let Some((_, gone)) = gives_way.and_then(|id| self.waiting.remove(&id)) {
            gone.cancel();
        }
        let (id, gone) = (self.next, CancellationToken::new());
        self.next += 1;
        self.waiting.insert(id, (client, gone.clone()));
        (id, gone)
    }
}

/// The place of a socket that has not said who it is.
struct Anteroom {
    strangers: Arc<Mutex<Strangers>>,
    id: u64,
    gone: CancellationToken,
}

impl Drop for Anteroom {
    fn drop(&mut self) {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&self.id);
    }
}

impl Sockets {
    /// They are closed when `stop` is cancelled.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, all: Arc::new(Semaphore::new(MAX_SOCKETS)), users: Arc::default(), strangers: Arc::default() }
    }

    /// A place for somebody who has not said who they are.
    fn wait(&self, client: Option<IpAddr>) -> Anteroom {
        let (id, gone) = self.strangers.lock().unwrap_or_else(PoisonError::into_inner).enter(client);
        Anteroom { strangers: Arc::clone(&self.strangers), id, gone }
    }

    /// A seat for a user, who is not kept from it by strangers.
    fn enter(&self, user: Uuid) -> Result<Seat, Close> {
        let place = Arc::clone(&self.all).try_acquire_owned().map_err(|_| Close::Unavailable)?;
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let count = users.entry(user).or_default();
        if *count >= MAX_SOCKETS_PER_USER {
            return Err(Close::TooManySockets);
        }
        *count += 1;
        Ok(Seat { users: Arc::clone(&self.users), user, _place: place })
    }
}

/// One of a user's sockets.
struct Seat {
    users: Arc<Mutex<HashMap<Uuid, usize>>>,
    user: Uuid,
    _place: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = users.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.user);
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ClientMessage {
    ConnectionInit { payload: Option<InitPayload> },
    Ping { payload: Option<serde_json::Value> },
    Pong {},
    Subscribe { id: String, payload: Parameters },
    Complete { id: String },
}

/// Where clients put the token: as they would in HTTP's header, or bare.
#[derive(Default, Deserialize)]
struct InitPayload {
    #[serde(alias = "Authorization")]
    authorization: Option<String>,
    token: Option<String>,
}

impl InitPayload {
    fn token(&self) -> Option<&str> {
        let bearer = self.authorization.as_deref().and_then(|value| value.split_once(' '));
        let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        bearer.or(self.token.as_deref())
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ServerMessage<'a> {
    ConnectionAck {},
    Ping {},
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<serde_json::Value>,
    },
    Next {
        id: &'a str,
        payload: &'a GraphqlResponse,
    },
    Error {
        id: &'a str,
        payload: &'a [async_graphql::ServerError],
    },
    Complete {
        id: &'a str,
    },
}

impl ServerMessage<'_> {
    fn message(&self) -> Message {
        // Our own types are plain data, which serde_json always writes.
        Message::text(serde_json::to_string(self).unwrap_or_default())
    }
}

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

/// Browsers say which page opens a socket; only our own may. Others have no page, and need a token
/// like everybody.
fn upgrade(ws: Ws, headers: &HeaderMap, client: Client, share: Option<IpAddr>, services: Arc<Services>) -> Response {
    let origin = headers.get(header::ORIGIN);
    if origin.is_some_and(|origin| !is_ours(origin, &services.app.base_url)) {
        let sentence = "This page isn't allowed to open a WebSocket here.";
        return error(StatusCode::FORBIDDEN, "origin_not_allowed", sentence).into_response();
    }
    let anteroom = services.sockets.wait(share);
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let speaks = offered.flat_map(|value| value.split(',')).any(|protocol| protocol.trim() == PROTOCOL);
    let ws = ws.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    let mut response = ws.on_upgrade(move |socket| serve(socket, speaks, client, services, anteroom)).into_response();
    if speaks {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    response
}

fn is_ours(origin: &HeaderValue, base_url: &str) -> bool {
    // An origin is a URL's scheme and authority, without a path.
    let (scheme, rest) = base_url.split_once("://").unwrap_or_default();
    let authority = rest.split('/').next().unwrap_or_default();
    origin.to_str().is_ok_and(|origin| origin.eq_ignore_ascii_case(&format!("{scheme}://{authority}")))
}

async fn serve(socket: WebSocket, speaks: bool, client: Client, services: Arc<Services>, anteroom: Anteroom) {
    metrics::gauge!("hookledger_sockets").increment(1.0);
    let (outgoing, waiting) = mpsc::channel(MAX_WAITING);
    let connection = Connection {
        socket,
        services,
        client,
        gone: anteroom.gone.clone(),
        anteroom: Some(anteroom),
        session: None,
        operations: HashMap::new(),
        outgoing,
        heard: Instant::now(),
    };
    connection.run(speaks, waiting).await;
    metrics::gauge!("hookledger_sockets").decrement(1.0);
}

/// Who a socket belongs to, once it said so.
struct Session {
    token: String,
    viewer: Viewer,
    _seat: Seat,
}

/// What an operation has to say.
enum Outgoing {
    /// The other end hears when it was sent, or never will be.
    Message(Message, oneshot::Sender<()>),
    /// The last of the operation of that id and run, whose id is free from then on.
    Last(Message, String, Uuid),
}

struct Connection {
    socket: WebSocket,
    services: Arc<Services>,
    client: Client,
    /// When another stranger has its place.
    gone: CancellationToken,
    /// Until it has said who it is.
    anteroom: Option<Anteroom>,
    session: Option<Session>,
    /// By the client's id: which run of it this is, and what ends it.
    operations: HashMap<String, (Uuid, DropGuard)>,
    outgoing: mpsc::Sender<Outgoing>,
    heard: Instant,
}

impl Connection {
    async fn run(mut self, speaks: bool, waiting: mpsc::Receiver<Outgoing>) {
        let close = if speaks { self.converse(waiting).await } else { Some(Close::Subprotocol) };
        self.operations.clear();
        let Some(close) = close else { return };
        let (code, reason) = close.frame();
        tracing::debug!(socket.close = code, reason, "a socket is closed");
        let gave_way = close == Close::GaveWay;
        let farewell = async {
            let _ = self.socket.send(Message::close_with(code, reason)).await;
            // The client answers with a close of its own. Who gave way is not waited for: there would be as
            // many again.
            while !gave_way && let Some(Ok(_)) = self.socket.next().await {}
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
    }

    /// Until somebody closes: with what code, where it is us.
    async fn converse(&mut self, mut waiting: mpsc::Receiver<Outgoing>) -> Option<Close> {
        let (stop, gone) = (self.services.sockets.stop.clone(), self.gone.clone());
        let began = Instant::now();
        let mut check = tokio::time::interval_at(began + CHECK, CHECK);
        let mut ping = tokio::time::interval_at(began + PING, PING);
        let init = tokio::time::sleep(INIT_LIMIT);
        tokio::pin!(init);
        loop {
            let done = tokio::select! {
                () = stop.cancelled() => Err(Close::GoingAway),
                () = gone.cancelled(), if self.session.is_none() => Err(Close::GaveWay),
                () = &mut init, if self.session.is_none() => Err(Close::InitTimeout),
                incoming = self.socket.next() => match incoming {
                    None => return None,
                    Some(Err(error)) => match error_close(&error) {
                        Some(close) => Err(close),
                        None => return None,
                    },
                    Some(Ok(message)) if message.is_close() => return None,
                    Some(Ok(message)) => self.hear(message).await,
                },
                Some(outgoing) = waiting.recv() => match outgoing {
                    Outgoing::Message(message, _sent) => self.send(message).await,
                    Outgoing::Last(message, id, run) => {
                        // The client may have ended it meanwhile, and begun another under this id.
                        if self.operations.get(&id).is_some_and(|(current, _)| *current == run) {
                            self.operations.remove(&id);
                            self.send(message).await
                        } else {
                            Ok(())
                        }
                    }
                },
                _ = ping.tick() => self.send(ServerMessage::Ping {}.message()).await,
                _ = check.tick() => self.check().await,
            };
            if let Err(close) = done {
                return Some(close);
            }
        }
    }

    async fn hear(&mut self, message: Message) -> Result<(), Close> {
        self.heard = Instant::now();
        if message.is_ping() || message.is_pong() {
            return Ok(());
        }
        let text = message.to_str().map_err(|()| Close::BadMessage)?;
        match serde_json::from_str(text).map_err(|_| Close::BadMessage)? {
            ClientMessage::ConnectionInit { payload } => self.init(payload.unwrap_or_default()).await,
            ClientMessage::Ping { payload } => self.send(ServerMessage::Pong { payload }.message()).await,
            ClientMessage::Pong {} => Ok(()),
            ClientMessage::Subscribe { id, payload } => self.subscribe(id, payload).await,
            ClientMessage::Complete { id } => {
                self.operations.remove(&id);
                Ok(())
            }
        }
    }

    async fn init(&mut self, payload: InitPayload) -> Result<(), Close> {
        if self.session.is_some() {
            return Err(Close::TooManyInits);
        }
        let token = payload.token().ok_or(Close::Forbidden)?.to_owned();
        let viewer = viewer(&self.services, &token, self.client.clone()).await.map_err(|none| match none {
            NoViewer::Refused => Close::Forbidden,
            NoViewer::Unavailable => Close::Unavailable,
        })?;
        let seat = self.services.sockets.enter(viewer.user.id)?;
        self.anteroom = None;
        self.session = Some(Session { token, viewer, _seat: seat });
        self.send(ServerMessage::ConnectionAck {}.message()).await
    }

    async fn subscribe(&mut self, id: String, parameters: Parameters) -> Result<(), Close> {
        let session = self.session.as_ref().ok_or(Close::Unauthorized)?;
        if self.operations.contains_key(&id) {
            return Err(Close::DuplicateId);
        }
        let run = Uuid::now_v7();
        let request_id = run.to_string();
        let refused = if self.operations.len() >= MAX_OPERATIONS {
            let message = format!("A WebSocket can run at most {MAX_OPERATIONS} operations at once.");
            Err(crate::api::graphql::only_error(Code::LimitExceeded, message))
        } else {
            parameters.request()
        };
        let (request, held) = match refused {
            Ok(request) => with_viewer(request, &self.services.app, &session.viewer),
            Err(response) => {
                let response = with_codes(response, &request_id);
                return self.send(ServerMessage::Error { id: &id, payload: &response.errors }.message()).await;
            }
        };
        let end = CancellationToken::new();
        self.operations.insert(id.clone(), (run, end.clone().drop_guard()));
        let (schema, outgoing) = (self.services.schema.clone(), self.outgoing.clone());
        let span = tracing::info_span!("graphql", request.id = request_id);
        let work = async move {
            let mut answers = schema.execute_stream(request);
            let mut first = true;
            while let Some(answer) = answers.next().await {
                let refused = first && was_refused(&answer);
                first = false;
                let answer = with_codes(answer, &request_id);
                if refused {
                    let message = ServerMessage::Error { id: &id, payload: &answer.errors }.message();
                    let _ = outgoing.send(Outgoing::Last(message, id, run)).await;
                    return;
                }
                let message = ServerMessage::Next { id: &id, payload: &answer }.message();
                drop(answer);
                let (sent, is_sent) = oneshot::channel();
                if outgoing.send(Outgoing::Message(message, sent)).await.is_err() {
                    return;
                }
                // A large one counts until it is sent, and no other of this operation waits beside it.
                if held.is_large() {
                    let _ = is_sent.await;
                }
            }
            let message = ServerMessage::Complete { id: &id }.message();
            let _ = outgoing.send(Outgoing::Last(message, id, run)).await;
        };
        tokio::spawn(async move { end.run_until_cancelled(work).await }.instrument(span));
        Ok(())
    }

    /// Whether the client is still there, and its session what it was when it began.
    async fn check(&mut self) -> Result<(), Close> {
        if self.heard.elapsed() > SILENCE {
            return Err(Close::Silent);
        }
        let Some(session) = &self.session else { return Ok(()) };
        match viewer(&self.services, &session.token, self.client.clone()).await {
            Ok(now) if now.has_rights_of(&session.viewer) => Ok(()),
            // With other rights it has to begin anew.
            Ok(_) | Err(NoViewer::Refused) => Err(Close::SessionEnded),
            // It cannot be told for now; the session stays until it can.
            Err(NoViewer::Unavailable) => Ok(()),
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), Close> {
        match tokio::time::timeout(SEND_LIMIT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Close::Silent),
        }
    }
}

/// What to close with after an error of the transport; nothing where there is nobody to tell.
fn error_close(error: &warp::Error) -> Option<Close> {
    // warp hides what went wrong behind its text.
    error.to_string().contains("too long").then_some(Close::TooLarge)
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
    fn strangers_give_way_to_strangers_first_those_of_one_client() {
        let sockets = Sockets::new(CancellationToken::new());
        let other = sockets.wait(Some([192, 0, 2, 2].into()));
        let of_one: Vec<_> = (0..40).map(|_| sockets.wait(Some([192, 0, 2, 1].into()))).collect();
        let gone = of_one.iter().filter(|place| place.gone.is_cancelled()).count();
        assert_eq!((gone, other.gone.is_cancelled()), (40 - MAX_STRANGERS_PER_CLIENT, false));
        let shared: Vec<_> = (0..MAX_STRANGERS).map(|_| sockets.wait(None)).collect();
        assert!(other.gone.is_cancelled() && shared.iter().all(|place| !place.gone.is_cancelled()));
        let seats: Vec<_> = (0..MAX_SOCKETS).filter_map(|n| sockets.enter(Uuid::from_u128(n as u128)).ok()).collect();
        assert_eq!(seats.len(), MAX_SOCKETS, "whoever signs in has a seat, however many strangers wait");
        drop((of_one, shared, other));
        assert!(sockets.strangers.lock().unwrap().waiting.is_empty());
    }

    #[test]
    fn what_is_not_the_protocol_is_no_message() {
        let parse = serde_json::from_str::<ClientMessage>;
        for good in [
            r#"{"type":"connection_init"}"#,
            r#"{"type":"connection_init","payload":{"authorization":"Bearer x","more":1}}"#,
            r#"{"type":"ping","payload":{"a":1}}"#,
            r#"{"type":"pong"}"#,
            r#"{"type":"complete","id":"1"}"#,
            r#"{"type":"subscribe","id":"1","payload":{"query":"{ __typename }"}}"#,
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"type":"start","id":"1"}"#,
            r#"{"type":"subscribe","id":"1"}"#,
            r#"{"type":"complete"}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
