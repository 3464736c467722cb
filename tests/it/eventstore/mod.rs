//! A double of an EventStoreDB server, over gRPC on 127.0.0.1, for the calls that the relay makes. It is not
//! EventStoreDB. It follows the protocol and the rules of the documentation: streams,
//! expected revisions, idempotent appends by event IDs, the maximum size of an append. It can also misbehave.

mod proto;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures::Stream;
use futures::stream::{self, BoxStream, StreamExt as _};
use hookledger::platform::lane::{Lane, Niceness};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use self::proto::event_store::client::server_features::server_features_server::{ServerFeatures, ServerFeaturesServer};
use self::proto::event_store::client::server_features::{SupportedMethod, SupportedMethods};
use self::proto::event_store::client::streams::append_req::options::ExpectedStreamRevision;
use self::proto::event_store::client::streams::append_resp::success::{CurrentRevisionOption, PositionOption};
use self::proto::event_store::client::streams::append_resp::wrong_expected_version as wrong;
use self::proto::event_store::client::streams::append_resp::{
    Position, Result as Appended, Success, WrongExpectedVersion,
};
use self::proto::event_store::client::streams::read_req::options::{CountOption, ReadDirection, StreamOption};
use self::proto::event_store::client::streams::read_resp::read_event::RecordedEvent;
use self::proto::event_store::client::streams::read_resp::{Content, ReadEvent, StreamNotFound};
use self::proto::event_store::client::streams::streams_server::{Streams, StreamsServer};
use self::proto::event_store::client::streams::{
    AppendReq, AppendResp, BatchAppendReq, BatchAppendResp, DeleteReq, DeleteResp, ReadReq, ReadResp, TombstoneReq,
    TombstoneResp, append_req,
};
use self::proto::event_store::client::{Empty, StreamIdentifier, Uuid as WireId, uuid as wire_id};

/// Maximum size of an append to an EventStoreDB, in bytes.
const MAX_APPEND: usize = 1 << 20;

/// An event in the double.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    pub id: Uuid,
    pub event_type: String,
    pub data: Vec<u8>,
    pub metadata: Vec<u8>,
}

/// How it misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Fault {
    #[default]
    None,
    /// Calls are accepted and never answered.
    Hang,
    /// An append succeeds, and then its call is broken off.
    BreakAfterCommit,
    /// An append is refused as if the stream had another revision.
    RefuseAppends,
    /// An append is answered without a result, which makes the client panic.
    AnswerNothing,
}

#[derive(Default)]
struct State {
    streams: BTreeMap<String, Vec<Kept>>,
    fault: Fault,
    appends: usize,
}

/// The double: its data lives as long as this, its server until it is stopped.
pub struct Double {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    serving: Mutex<Option<Lane>>,
}

impl Double {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let double = Self { state: Arc::default(), address, serving: Mutex::default() };
        double.restart().await;
        double
    }

    pub fn url(&self) -> String {
        format!("esdb://{}?tls=false&discoveryInterval=50", self.address)
    }

    /// Ends it like a crash: every connection breaks, also in the middle of a call.
    pub fn kill(&self) {
        drop(self.serving.lock().unwrap().take());
    }

    /// Serves again, with the data that it had.
    pub async fn restart(&self) {
        self.kill();
        let lane = Lane::start("eventstore-double", Niceness::None).unwrap();
        let (state, address) = (Arc::clone(&self.state), self.address);
        let listener = lane.run(tokio::net::TcpListener::bind(address)).await.unwrap().unwrap();
        let incoming = stream::unfold(listener, |listener| async {
            Some((listener.accept().await.map(|(connection, _)| connection), listener))
        });
        lane.handle().spawn(
            tonic::transport::Server::builder()
                .add_service(StreamsServer::new(Service(Arc::clone(&state))))
                .add_service(ServerFeaturesServer::new(Service(state)))
                .serve_with_incoming(incoming),
        );
        *self.serving.lock().unwrap() = Some(lane);
    }

    pub fn misbehave(&self, fault: Fault) {
        self.state.lock().unwrap().fault = fault;
    }

    pub fn stream(&self, name: &str) -> Vec<Kept> {
        self.state.lock().unwrap().streams.get(name).cloned().unwrap_or_default()
    }

    pub fn put(&self, name: &str, event: Kept) {
        self.state.lock().unwrap().streams.entry(name.to_owned()).or_default().push(event);
    }

    pub fn remove(&self, name: &str) {
        self.state.lock().unwrap().streams.remove(name);
    }

    /// Events of all streams.
    pub fn count(&self) -> usize {
        self.state.lock().unwrap().streams.values().map(Vec::len).sum()
    }

    /// Calls to append that it has seen.
    pub fn appends(&self) -> usize {
        self.state.lock().unwrap().appends
    }
}

struct Service(Arc<Mutex<State>>);

impl Service {
    async fn misbehave(&self) {
        let hangs = self.0.lock().unwrap().fault == Fault::Hang;
        if hangs {
            std::future::pending::<()>().await;
        }
    }
}

#[tonic::async_trait]
impl ServerFeatures for Service {
    async fn get_supported_methods(&self, _: Request<Empty>) -> Result<Response<SupportedMethods>, Status> {
        self.misbehave().await;
        let method = |method: &str| SupportedMethod {
            method_name: method.to_owned(),
            service_name: "event_store.client.streams.streams".to_owned(),
            features: Vec::new(),
        };
        Ok(Response::new(SupportedMethods {
            methods: ["read", "append"].map(method).to_vec(),
            event_store_server_version: "23.10.0.0".to_owned(),
        }))
    }
}

#[tonic::async_trait]
impl Streams for Service {
    type ReadStream = BoxStream<'static, Result<ReadResp, Status>>;
    type BatchAppendStream = BoxStream<'static, Result<BatchAppendResp, Status>>;

    async fn read(&self, request: Request<ReadReq>) -> Result<Response<Self::ReadStream>, Status> {
        self.misbehave().await;
        let options = request.into_inner().options.ok_or_else(|| Status::invalid_argument("options"))?;
        let Some(StreamOption::Stream(of)) = options.stream_option.clone() else {
            return Err(Status::unimplemented("the double reads one stream"));
        };
        let (Some(CountOption::Count(count)), ReadDirection::Backwards) =
            (options.count_option, options.read_direction())
        else {
            return Err(Status::unimplemented("the double reads backwards"));
        };
        let name = name(of.stream_identifier)?;
        let answer = |content| Ok(ReadResp { content: Some(content) });
        let state = self.0.lock().unwrap();
        let Some(events) = state.streams.get(&name) else {
            let missing = StreamNotFound { stream_identifier: Some(identifier(&name)) };
            return Ok(Response::new(stream::iter([answer(Content::StreamNotFound(missing))]).boxed()));
        };
        let last: Vec<_> = events
            .iter()
            .enumerate()
            .rev()
            .take(usize::try_from(count).unwrap_or(usize::MAX))
            .map(|(revision, event)| answer(Content::Event(recorded(&name, revision as u64, event))))
            .collect();
        Ok(Response::new(stream::iter(last).boxed()))
    }

    async fn append(&self, request: Request<Streaming<AppendReq>>) -> Result<Response<AppendResp>, Status> {
        self.misbehave().await;
        let (name, expected, events) = proposal(request.into_inner()).await?;
        let size: usize = events.iter().map(|event| event.data.len() + event.metadata.len()).sum();
        if size > MAX_APPEND {
            return Err(Status::invalid_argument("Maximum Append Size of 1048576 Exceeded."));
        }
        let mut state = self.0.lock().unwrap();
        state.appends += 1;
        let result = if state.fault == Fault::RefuseAppends {
            let there = state.streams.get(&name).map_or(0, Vec::len) as u64;
            refusal(there.checked_sub(1), expected)
        } else {
            append(&mut state.streams, name, expected, events)
        };
        match state.fault {
            Fault::BreakAfterCommit => Err(Status::unavailable("the connection broke")),
            Fault::AnswerNothing => Ok(Response::new(AppendResp { result: None })),
            _ => Ok(Response::new(AppendResp { result: Some(result) })),
        }
    }

    async fn delete(&self, _: Request<DeleteReq>) -> Result<Response<DeleteResp>, Status> {
        Err(Status::unimplemented("delete"))
    }

    async fn tombstone(&self, _: Request<TombstoneReq>) -> Result<Response<TombstoneResp>, Status> {
        Err(Status::unimplemented("tombstone"))
    }

    async fn batch_append(
        &self,
        _: Request<Streaming<BatchAppendReq>>,
    ) -> Result<Response<Self::BatchAppendStream>, Status> {
        Err(Status::unimplemented("batch append"))
    }
}

/// Reads the call to append: the stream, the expected revision and the events.
async fn proposal(
    mut messages: impl Stream<Item = Result<AppendReq, Status>> + Unpin,
) -> Result<(String, ExpectedStreamRevision, Vec<Kept>), Status> {
    let (mut head, mut events) = (None, Vec::new());
    while let Some(message) = messages.next().await {
        match message?.content {
            Some(append_req::Content::Options(options)) => {
                let expected = options.expected_stream_revision.ok_or_else(|| Status::invalid_argument("revision"))?;
                head = Some((name(options.stream_identifier)?, expected));
            }
            Some(append_req::Content::ProposedMessage(event)) => events.push(Kept {
                id: id(event.id)?,
                event_type: event.metadata.get("type").cloned().unwrap_or_default(),
                data: event.data,
                metadata: event.custom_metadata,
            }),
            None => return Err(Status::invalid_argument("content")),
        }
    }
    let (name, expected) = head.ok_or_else(|| Status::invalid_argument("options"))?;
    Ok((name, expected, events))
}

/// Appends all events or none. A repetition with the same IDs at the same place succeeds, too.
fn append(
    streams: &mut BTreeMap<String, Vec<Kept>>,
    name: String,
    expected: ExpectedStreamRevision,
    events: Vec<Kept>,
) -> Appended {
    let there = streams.get(&name).map_or(0, Vec::len);
    let at = match expected {
        ExpectedStreamRevision::Revision(revision) => usize::try_from(revision).unwrap() + 1,
        ExpectedStreamRevision::NoStream(_) => 0,
        ExpectedStreamRevision::Any(_) | ExpectedStreamRevision::StreamExists(_) => there,
    };
    let last = (at + events.len()) as u64 - 1;
    let success = Appended::Success(Success {
        current_revision_option: Some(CurrentRevisionOption::CurrentRevision(last)),
        position_option: Some(PositionOption::Position(Position { commit_position: last, prepare_position: last })),
    });
    if at == there {
        streams.entry(name).or_default().extend(events);
        return success;
    }
    let before = streams.get(&name).and_then(|kept| kept.get(at..at + events.len()));
    if before.is_some_and(|before| before.iter().zip(&events).all(|(a, b)| a.id == b.id)) {
        return success;
    }
    refusal((there as u64).checked_sub(1), expected)
}

fn refusal(current: Option<u64>, expected: ExpectedStreamRevision) -> Appended {
    Appended::WrongExpectedVersion(WrongExpectedVersion {
        current_revision_option: Some(current.map_or(
            wrong::CurrentRevisionOption::CurrentNoStream(Empty {}),
            wrong::CurrentRevisionOption::CurrentRevision,
        )),
        expected_revision_option: Some(match expected {
            ExpectedStreamRevision::Revision(n) => wrong::ExpectedRevisionOption::ExpectedRevision(n),
            _ => wrong::ExpectedRevisionOption::ExpectedNoStream(Empty {}),
        }),
        ..WrongExpectedVersion::default()
    })
}

fn recorded(name: &str, revision: u64, event: &Kept) -> ReadEvent {
    let metadata = [("type", event.event_type.as_str()), ("content-type", "application/json"), ("created", "0")];
    let recorded = RecordedEvent {
        id: Some(WireId { value: Some(wire_id::Value::String(event.id.to_string())) }),
        stream_identifier: Some(identifier(name)),
        stream_revision: revision,
        metadata: HashMap::from(metadata.map(|(key, value)| (key.to_owned(), value.to_owned()))),
        custom_metadata: event.metadata.clone(),
        data: event.data.clone(),
        ..RecordedEvent::default()
    };
    ReadEvent { event: Some(recorded), link: None, position: None }
}

fn identifier(name: &str) -> StreamIdentifier {
    StreamIdentifier { stream_name: name.as_bytes().to_vec() }
}

fn name(identifier: Option<StreamIdentifier>) -> Result<String, Status> {
    let name = identifier.ok_or_else(|| Status::invalid_argument("stream"))?.stream_name;
    String::from_utf8(name).map_err(|_| Status::invalid_argument("stream"))
}

fn id(id: Option<WireId>) -> Result<Uuid, Status> {
    match id.and_then(|id| id.value) {
        #[expect(clippy::cast_sign_loss, reason = "halves of an id")]
        Some(wire_id::Value::Structured(id)) => {
            Ok(Uuid::from_u64_pair(id.most_significant_bits as u64, id.least_significant_bits as u64))
        }
        Some(wire_id::Value::String(text)) => text.parse().map_err(|_| Status::invalid_argument("id")),
        None => Err(Status::invalid_argument("id")),
    }
}
