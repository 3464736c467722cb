//! Stands between a socket and async-graphql's protocol: passes on what is sound, and closes on everything else.
//!
//! Every limit of a socket is kept here: how long it may take to say who it is, that its session is in force,
//! how many operations it runs, how long it may be silent, and how long it may take to take a message.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_graphql::ServerError;
use futures::channel::mpsc;
use futures::future::poll_fn;
use futures::{SinkExt as _, StreamExt as _};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warp::ws::{Message, WebSocket};

use super::close::Close;
use super::ids::{Ids, MAX_OPERATIONS, NotBegun};
use super::messages::{ClientMessage, Head, InitPayload, ServerMessage};
use super::operations::OnTheWay;
use super::places::{Anteroom, Seat};
use crate::api::graphql::{Code, Viewer, only_error};
use crate::api::http::Services;
use crate::api::http::session::{NoViewer, viewer};
use crate::identity::Client;

/// How long a client may take to authenticate.
const INIT_LIMIT: Duration = Duration::from_secs(5);
/// Interval of looks at the session, and of pings.
const CHECK: Duration = Duration::from_secs(3);
const PING: Duration = Duration::from_secs(20);
/// A client that was silent for this long is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a client may take to read a message.
const SEND_LIMIT: Duration = Duration::from_secs(10);
/// How long a client may take to answer a close.
const FAREWELL: Duration = Duration::from_secs(1);

/// The guard's ends of the two halves that the protocol runs on.
pub(super) struct Halves {
    /// Messages of the client that may pass.
    pub(super) heard: mpsc::Sender<Message>,
    /// Messages that the protocol has for the client.
    pub(super) said: mpsc::Receiver<Message>,
    /// Whose socket it is, once the client said so.
    pub(super) viewer: oneshot::Sender<Viewer>,
    /// The answer that was written last, until it is sent.
    pub(super) on_the_way: OnTheWay,
}

/// Whose socket it is.
struct Session {
    token: String,
    viewer: Viewer,
    _seat: Seat,
}

pub(super) struct Guard {
    socket: WebSocket,
    services: Arc<Services>,
    client: Client,
    /// Cancelled when another unauthenticated socket takes its place.
    gone: CancellationToken,
    /// Set until authentication.
    anteroom: Option<Anteroom>,
    session: Option<Session>,
    ids: Ids,
    heard: mpsc::Sender<Message>,
    tell_viewer: Option<oneshot::Sender<Viewer>>,
    on_the_way: OnTheWay,
    last_heard: Instant,
}

/// Serves a socket until it is closed. `protocol` runs on the other ends of the halves.
pub(super) async fn serve(
    socket: WebSocket,
    services: Arc<Services>,
    client: Client,
    anteroom: Anteroom,
    halves: Halves,
    protocol: impl Future<Output = ()>,
) {
    let guard = Guard {
        socket,
        services,
        client,
        gone: anteroom.gone(),
        anteroom: Some(anteroom),
        session: None,
        ids: Ids::default(),
        heard: halves.heard,
        tell_viewer: Some(halves.viewer),
        on_the_way: halves.on_the_way,
        last_heard: Instant::now(),
    };
    guard.run(halves.said, protocol).await;
}

/// Closes a socket, and hears the client's close.
pub(super) async fn close(mut socket: WebSocket, close: Close) {
    let (code, reason) = close.frame();
    tracing::debug!(socket.close = code, reason, "a socket is closed");
    // Sockets that give way are not waited for: they would take as much room again.
    let waits = close != Close::GaveWay;
    let farewell = async {
        let _ = socket.send(Message::close_with(code, reason)).await;
        while waits && let Some(Ok(_)) = socket.next().await {}
    };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

impl Guard {
    async fn run(mut self, said: mpsc::Receiver<Message>, protocol: impl Future<Output = ()>) {
        let closed = self.converse(said, protocol).await;
        if let Some(reason) = closed {
            close(self.socket, reason).await;
        }
    }

    /// Until somebody closes: why, where it is the server. The operations end with the protocol.
    async fn converse(
        &mut self,
        mut said: mpsc::Receiver<Message>,
        protocol: impl Future<Output = ()>,
    ) -> Option<Close> {
        let (stop, gone) = (self.services.sockets.stop(), self.gone.clone());
        let began = Instant::now();
        let mut check = tokio::time::interval_at(began + CHECK, CHECK);
        let mut ping = tokio::time::interval_at(began + PING, PING);
        let mut init = pin!(tokio::time::sleep(INIT_LIMIT));
        let mut protocol = pin!(protocol);
        loop {
            let done = tokio::select! {
                () = stop.cancelled() => Err(Close::GoingAway),
                () = gone.cancelled(), if self.session.is_none() => Err(Close::GaveWay),
                () = &mut init, if self.session.is_none() => Err(Close::InitTimeout),
                // It ends by itself only over a message that it does not understand.
                () = &mut protocol => Err(Close::BadMessage),
                incoming = next(&mut self.heard, &mut self.socket) => match incoming {
                    None => return None,
                    Some(Err(error)) => match Close::after(&error) {
                        Some(close) => Err(close),
                        None => return None,
                    },
                    Some(Ok(message)) if message.is_close() => return None,
                    Some(Ok(message)) => self.hear(message).await,
                },
                Some(message) = said.next() => self.say(message).await,
                _ = ping.tick() => self.send(ServerMessage::Ping {}.message()).await,
                _ = check.tick() => self.check().await,
            };
            if let Err(close) = done {
                return Some(close);
            }
        }
    }

    /// Takes a message of the client, and passes it on where the protocol has to answer it.
    async fn hear(&mut self, message: Message) -> Result<(), Close> {
        self.last_heard = Instant::now();
        if message.is_ping() || message.is_pong() {
            return Ok(());
        }
        let text = message.to_str().map_err(|()| Close::BadMessage)?;
        match serde_json::from_str(text).map_err(|_| Close::BadMessage)? {
            ClientMessage::ConnectionInit { payload } => self.init(payload.unwrap_or_default()).await?,
            ClientMessage::Subscribe { id, .. } => {
                if self.session.is_none() {
                    return Err(Close::Unauthorized);
                }
                match self.ids.begin(&id) {
                    Ok(()) => {}
                    Err(NotBegun::Duplicate) => return Err(Close::DuplicateId),
                    Err(NotBegun::TooMany) => return self.refuse_one_more(&id).await,
                }
            }
            ClientMessage::Complete { id } if !self.ids.end(&id) => return Ok(()),
            ClientMessage::Complete { .. } | ClientMessage::Ping {} => {}
            ClientMessage::Pong {} => return Ok(()),
        }
        // There is room: it was waited for before the message was read.
        self.heard.start_send(message).map_err(|_| Close::BadMessage)
    }

    /// Lets a user in, whom the protocol then acknowledges.
    async fn init(&mut self, payload: InitPayload) -> Result<(), Close> {
        let tell_viewer = self.tell_viewer.take().ok_or(Close::TooManyInits)?;
        let token = payload.token().ok_or(Close::Forbidden)?.to_owned();
        let viewer = viewer(&self.services, &token, self.client.clone()).await.map_err(|none| match none {
            NoViewer::Refused => Close::Forbidden,
            NoViewer::Unavailable => Close::Unavailable,
        })?;
        let seat = self.services.sockets.enter(viewer.user.id)?;
        self.anteroom = None;
        let _ = tell_viewer.send(viewer.clone());
        self.session = Some(Session { token, viewer, _seat: seat });
        Ok(())
    }

    async fn refuse_one_more(&mut self, id: &str) -> Result<(), Close> {
        let message = format!("A WebSocket can run at most {MAX_OPERATIONS} operations at once.");
        let refusal = only_error(Code::LimitExceeded, message);
        self.refuse(id, &refusal.errors).await
    }

    async fn refuse(&mut self, id: &str, errors: &[ServerError]) -> Result<(), Close> {
        self.send(ServerMessage::Error { id, payload: errors }.message()).await
    }

    /// Sends what the protocol has to say, unless it is about an operation that ended for the client.
    async fn say(&mut self, message: Message) -> Result<(), Close> {
        let head = message.to_str().ok().and_then(|text| serde_json::from_str::<Head>(text).ok());
        let Some(Head { kind, id }) = head else { return Err(Close::BadMessage) };
        match (kind, id) {
            ("next", Some(id)) => {
                // Others wait until this is sent.
                let turn = self.on_the_way.take();
                if !self.ids.is_running(&id) {
                    return Ok(());
                }
                match turn.as_ref().and_then(|turn| turn.refusal.as_deref()) {
                    Some(errors) => {
                        self.ids.end(&id);
                        self.refuse(&id, errors).await
                    }
                    None => self.send(message).await,
                }
            }
            ("complete", Some(id)) if !self.ids.complete(&id) => Ok(()),
            _ => self.send(message).await,
        }
    }

    /// Whether the client is still there, with an unchanged session.
    async fn check(&mut self) -> Result<(), Close> {
        if self.last_heard.elapsed() > SILENCE {
            return Err(Close::Silent);
        }
        let Some(session) = &self.session else { return Ok(()) };
        match viewer(&self.services, &session.token, self.client.clone()).await {
            Ok(now) if now.has_rights_of(&session.viewer) => Ok(()),
            // With other permissions it has to connect again.
            Ok(_) | Err(NoViewer::Refused) => Err(Close::SessionEnded),
            // Unknown for now; the session stays until it is known.
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

/// The next message of the client, once the protocol can take one.
async fn next(heard: &mut mpsc::Sender<Message>, socket: &mut WebSocket) -> Option<Result<Message, warp::Error>> {
    poll_fn(|context| heard.poll_ready(context)).await.ok()?;
    socket.next().await
}
