//! The accept loop: warp has no header timeout and no limit on connections.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode, header};
use hyper::body::{Body, Frame, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;
use warp::reply::Response;
use warp::{Filter, Reply as _};

use super::clients::{Clients, Place, Seat};
use super::connection::{Guarded, Heads};
use super::error;

/// Connections waiting to be accepted; for more, connecting takes a second.
const BACKLOG: u32 = 4_096;
/// How long a client may take for its headers, and may stay idle between requests.
const HEADER_LIMIT: Duration = Duration::from_secs(20);
/// Maximum size of a request's head in bytes.
const MAX_HEAD: usize = 64 << 10;
/// How long requests in flight may take after a request to stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// Clients without a place that get an answer and are waited for; more get an answer and are cut off.
const TURNED_AWAY: usize = 512;
/// How long one of them may take to read it.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);
/// How long newcomers wait before they are turned away, because recently accepted connections are still being
/// examined.
const LOOK_LIMIT: Duration = Duration::from_millis(100);
const LOOK_PAUSE: Duration = Duration::from_millis(2);
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-length: 73\r\n\r\n\
    {\"error\":\"Too many connections. Try again shortly.\",\"code\":\"unavailable\"}";

/// Serves routes on a listener.
pub struct Server {
    listener: TcpListener,
    clients: Clients,
}

impl Server {
    pub fn bind(address: SocketAddr, clients: Clients) -> std::io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // An address that was in use a moment ago is available.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self { listener: socket.listen(BACKLOG)?, clients })
    }

    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts until stopped, then lets requests in flight finish, within a limit.
    pub async fn run<F>(self, routes: F, stop: CancellationToken)
    where
        F: Filter<Extract = (Response,), Error = std::convert::Infallible> + Clone + Send + Sync + 'static,
        F::Future: Send,
    {
        let (connections, turned_away) = (TaskTracker::new(), Arc::new(Semaphore::new(TURNED_AWAY)));
        let mut full_since: Option<Instant> = None;
        while let Some((stream, peer)) = stop.run_until_cancelled(accept(&self.listener)).await {
            let Some(place) = self.place_for(peer.ip(), &mut full_since).await else {
                turn_away(stream, &turned_away);
                continue;
            };
            let (clients, routes, stop) = (self.clients.clone(), routes.clone(), stop.clone());
            connections.spawn(async move {
                let serving = serve_one(stream, peer.ip(), clients, &place.seat, routes, stop);
                tokio::select! {
                    () = serving => {}
                    () = place.seat.gone() => {}
                }
            });
        }
        drop(self.listener);
        connections.close();
        if tokio::time::timeout(DRAIN_LIMIT, connections.wait()).await.is_err() {
            tracing::warn!("requests were still in flight when the time to finish was over");
        }
    }
}

impl Server {
    /// A place, at once or as soon as a connection gives way. While there has been none for longer, others do
    /// not wait for one.
    async fn place_for(&self, peer: IpAddr, full_since: &mut Option<Instant>) -> Option<Place> {
        loop {
            if let Some(place) = self.clients.admit(peer) {
                *full_since = None;
                return Some(place);
            }
            if !self.clients.are_full() || full_since.get_or_insert_with(Instant::now).elapsed() >= LOOK_LIMIT {
                return None;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}

/// Serves one connection with every guard, to its end.
pub async fn serve_connection<S, F>(stream: S, peer: IpAddr, routes: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Filter<Extract = (Response,), Error = std::convert::Infallible> + Clone + Send + Sync + 'static,
    F::Future: Send,
{
    let clients = Clients::new(1, 1, Vec::new());
    let Some(place) = clients.admit(peer) else { return };
    serve_one(stream, peer, clients, &place.seat, routes, CancellationToken::new()).await;
}

async fn serve_one<S, F>(
    stream: S,
    peer: IpAddr,
    clients: Clients,
    seat: &Arc<Seat>,
    routes: F,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Filter<Extract = (Response,), Error = std::convert::Infallible> + Clone + Send + Sync + 'static,
    F::Future: Send,
{
    // Only HTTP/1: detecting HTTP/2 waits for a first byte without a limit.
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT).max_buf_size(MAX_HEAD);
    let (stream, heads) = Guarded::new(stream, Arc::clone(seat));
    let service = warp::service(routes);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        let client = clients.client(peer, request.headers());
        request.extensions_mut().insert(client);
        let (mut service, heads, seat) = (service.clone(), heads.clone(), Arc::clone(seat));
        async move {
            let request = request.map(|body| Incoming::new(body, Arc::clone(&seat)));
            let answer = answer(&heads, request, |request| service.call(request)).await;
            seat.set_busy(false);
            answer
        }
    });
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            // The request in flight is answered, and no other is accepted.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// Answers a request with an unambiguous length and host.
async fn answer<A: Future<Output = Result<Response, std::convert::Infallible>>>(
    heads: &Heads,
    request: hyper::Request<Incoming>,
    routes: impl FnOnce(hyper::Request<Incoming>) -> A,
) -> Result<Response, std::convert::Infallible> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let refused = if heads.are_ambiguous() {
        Some(("ambiguous_length", "A request can't have both Content-Length and Transfer-Encoding."))
    } else if request.uri().path_and_query().is_none() {
        // `CONNECT host:port`, with which the routes cannot deal.
        Some(("no_path", "A request must have a path. This server is no proxy."))
    } else {
        (hosts > 1).then_some(("ambiguous_host", "A request must have exactly one Host header."))
    };
    let mut response = match refused {
        Some((code, sentence)) => error(StatusCode::BAD_REQUEST, code, sentence).into_response(),
        None => routes(request).await?,
    };
    let is_upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if refused.is_some() || heads.are_lost() && !is_upgraded {
        // The beginning of the next head is known only after bodies with a stated length; see `framing`.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// A body that reports when it is complete: from then on its connection waits for us, not for the client.
struct Incoming {
    body: hyper::body::Incoming,
    seat: Arc<Seat>,
}

impl Incoming {
    fn new(body: hyper::body::Incoming, seat: Arc<Seat>) -> Self {
        if body.is_end_stream() {
            seat.set_busy(true);
        }
        Self { body, seat }
    }
}

impl Body for Incoming {
    type Data = bytes::Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.body.is_end_stream() {
            self.seat.set_busy(true);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The next connection.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small and should not wait for more data.
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error) => {
                // Most likely out of file descriptors: some become free in a moment.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Tells a client that there is no place for it, and lets it read that: closing while it sends would reset
/// the connection.
fn turn_away(mut stream: TcpStream, turned_away: &Arc<Semaphore>) {
    metrics::counter!("hookledger_connections_refused_total").increment(1);
    let Ok(permit) = Arc::clone(turned_away).try_acquire_owned() else {
        // Without waiting: most clients will read it; those whose request has arrived already may not.
        if let Ok(mut stream) = stream.into_std() {
            let _ = std::io::Write::write(&mut stream, NO_PLACE);
        }
        return;
    };
    tokio::spawn(async move {
        let farewell = async {
            stream.write_all(NO_PLACE).await?;
            stream.shutdown().await?;
            let mut dropped = [0; 1_024];
            while stream.read(&mut dropped).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        let _ = tokio::time::timeout(FAREWELL_LIMIT, farewell).await;
        drop(permit);
    });
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_farewell_says_its_length() {
        let text = std::str::from_utf8(super::NO_PLACE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
    }
}
