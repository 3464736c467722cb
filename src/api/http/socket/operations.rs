//! The operations of a socket. Each is checked, paid for and executed in a task of its own.
//!
//! async-graphql would ask the operations for answers in no particular order, and hold one answer while another is
//! sent. So an answer waits here for its turn, first come, first served, and the turn lasts until the guard has
//! sent it.

use std::any::TypeId;
use std::sync::{Arc, Mutex, PoisonError};

use async_graphql::{Data, Executor, Request, Response, ServerError};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::api::graphql::{
    Allowance, App, Code, Schema, Viewer, checked, only_error, was_refused, with_codes, with_viewer,
};

/// The operations of one socket.
#[derive(Clone)]
pub(super) struct Operations {
    schema: Schema,
    app: App,
    turns: Arc<Semaphore>,
    on_the_way: OnTheWay,
}

/// The turn of the one answer that is on its way to the client.
#[derive(Clone, Default)]
pub(super) struct OnTheWay(Arc<Mutex<Option<Turn>>>);

impl OnTheWay {
    /// The turn of the answer that was just written. The next one begins when it is dropped.
    pub(super) fn take(&self) -> Option<Turn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn begin(&self, turn: Turn) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(turn);
    }
}

/// The right to be the answer that is on its way.
pub(super) struct Turn {
    /// Why the operation was not executed, where it was not.
    pub(super) refusal: Option<Vec<ServerError>>,
    _permit: OwnedSemaphorePermit,
    /// The operation goes on when this is dropped.
    _sent: oneshot::Sender<()>,
}

impl Operations {
    pub(super) fn new(schema: Schema, app: App) -> Self {
        Self { schema, app, turns: Arc::new(Semaphore::new(1)), on_the_way: OnTheWay::default() }
    }

    pub(super) fn on_the_way(&self) -> OnTheWay {
        self.on_the_way.clone()
    }

    /// The request as it is executed, and the memory that its answers count for.
    fn prepared(&self, request: Request, session: Option<&Data>) -> Result<(Request, Arc<Allowance>), Response> {
        let viewer = session.and_then(|data| data.get(&TypeId::of::<Viewer>())?.downcast_ref::<Viewer>());
        let viewer = viewer.ok_or_else(|| only_error(Code::Unauthenticated, "Sign in first."))?;
        Ok(with_viewer(checked(request)?, &self.app, viewer))
    }

    /// Executes a request, and passes its answers on, each in its turn.
    async fn run(
        self,
        request: Result<(Request, Arc<Allowance>), Response>,
        request_id: String,
        answers: mpsc::Sender<(Response, Turn)>,
    ) {
        let (mut responses, held) = match request {
            Ok((request, held)) => (self.schema.execute_stream(request), Some(held)),
            Err(refused) => (stream::once(async { refused }).boxed(), None),
        };
        let mut is_first = true;
        while let Some(response) = responses.next().await {
            let is_refused = std::mem::take(&mut is_first) && was_refused(&response);
            let response = with_codes(response, &request_id);
            let Ok(permit) = Arc::clone(&self.turns).acquire_owned().await else { return };
            let (sent, is_sent) = oneshot::channel();
            let refusal = is_refused.then(|| response.errors.clone());
            if answers.send((response, Turn { refusal, _permit: permit, _sent: sent })).await.is_err() || is_refused {
                return;
            }
            // Its memory counts as used until it is sent.
            let _ = is_sent.await;
        }
        drop(held);
    }
}

impl Executor for Operations {
    async fn execute(&self, request: Request) -> Response {
        // Sockets execute streams only; without a session there is nothing to execute.
        match self.prepared(request, None) {
            Ok((request, _held)) => self.schema.execute(request).await,
            Err(refused) => refused,
        }
    }

    fn execute_stream(&self, request: Request, session: Option<Arc<Data>>) -> BoxStream<'static, Response> {
        let id = Uuid::now_v7().to_string();
        let span = tracing::info_span!("graphql", request.id = id);
        let request = self.prepared(request, session.as_deref());
        let (answers, mut answered) = mpsc::channel(1);
        let end = CancellationToken::new();
        let ends_with_stream = end.clone().drop_guard();
        let work = self.clone().run(request, id, answers);
        let work = async move {
            let _ = end.run_until_cancelled(work).await;
        };
        tokio::spawn(work.instrument(span));
        let on_the_way = self.on_the_way();
        stream::poll_fn(move |context| {
            let _ = &ends_with_stream;
            answered.poll_recv(context)
        })
        // async-graphql writes an answer as soon as it has it.
        .map(move |(response, turn)| {
            on_the_way.begin(turn);
            response
        })
        .boxed()
    }
}
