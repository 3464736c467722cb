//! The accept loop: warp has no header timeout and no bound on connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;
use warp::Filter;
use warp::reply::Response;

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4_096;
/// How long a client may take over its headers, and may stay idle between requests.
const HEADER_LIMIT: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;
/// How long requests in flight may take after a stop was asked for.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// The address of the client's end of the connection.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub SocketAddr);

/// Serves routes on a listener.
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// # Errors
    /// When the socket has no address.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts until stopped, then lets requests in flight finish, within a limit.
    pub async fn run<F>(self, routes: F, stop: CancellationToken)
    where
        F: Filter<Extract = (Response,), Error = std::convert::Infallible> + Clone + Send + Sync + 'static,
        F::Future: Send,
    {
        // HTTP/1 alone: detecting HTTP/2 waits for a first byte without a limit.
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT).max_buf_size(MAX_HEAD);
        let (closing, connections) = (CancellationToken::new(), TaskTracker::new());
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = stop.run_until_cancelled(accept(&self.listener, &slots)).await;
            let Some((stream, address, slot)) = accepted else { break };
            let service = warp::service(routes.clone());
            let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(ClientAddress(address));
                service.clone().call(request)
            });
            let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
            let closing = closing.clone();
            connections.spawn(async move {
                let mut connection = std::pin::pin!(connection);
                let ended = tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = closing.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                };
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended badly");
                }
                drop(slot);
            });
        }
        drop(self.listener);
        closing.cancel();
        connections.close();
        if tokio::time::timeout(DRAIN_LIMIT, connections.wait()).await.is_err() {
            tracing::warn!("requests were still in flight when the time to finish was over");
        }
    }
}

/// The next connection, once there is room for one.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (tokio::net::TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed, so there is always a permit.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // Answers are small: they should not wait for more to send.
                let _ = stream.set_nodelay(true);
                return (stream, address, slot);
            }
            Err(error) => {
                // Out of file descriptors, most likely: some are given back in a moment.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
