//! Scripted destinations and a scripted DNS.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::platform::egress::{Resolve, Unresolvable};

/// A server on its own port that passes each connection to a function.
pub struct Server {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Received>>>,
}

#[derive(Clone, Debug)]
pub struct Received {
    pub head: String,
    pub body: Vec<u8>,
}

pub struct Peer<S = TcpStream> {
    pub stream: BufReader<S>,
    requests: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    pub async fn start<F>(behave: impl Fn(Peer) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (counted, kept) = (Arc::clone(&connections), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(behave(Peer { stream: BufReader::new(stream), requests: Arc::clone(&kept) }));
            }
        });
        Self { address, connections, requests }
    }

    /// Answers every request with these bytes.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = Arc::new(answer.into());
        Self::start(move |mut peer| {
            let answer = Arc::clone(&answer);
            async move {
                while peer.request().await.is_some() {
                    peer.write(&answer).await;
                }
            }
        })
        .await
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook?a=b", self.address)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> Vec<Received> {
        self.requests.lock().unwrap().clone()
    }
}

impl Peer {
    /// The socket, and a function to continue on a stream built from it.
    pub fn split<S: AsyncRead>(self) -> (TcpStream, impl FnOnce(S) -> Peer<S>) {
        (self.stream.into_inner(), move |stream| Peer { stream: BufReader::new(stream), requests: self.requests })
    }

    /// Closes with a reset.
    pub fn reset(self) {
        self.stream.into_inner().set_zero_linger().unwrap();
    }
}

impl<S: AsyncRead + tokio::io::AsyncWrite + Unpin> Peer<S> {
    /// Reads one request; `None` if the client is gone.
    pub async fn request(&mut self) -> Option<Received> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        let received = Received { head, body };
        self.requests.lock().unwrap().push(received.clone());
        Some(received)
    }

    /// Writes; returns whether the client accepted it.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Waits until the client closes.
    pub async fn gone(&mut self) {
        let mut rest = [0; 4096];
        while self.stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    }
}

/// A DNS that returns its answers one after the other, and counts the questions.
#[derive(Clone, Default)]
pub struct Scripted {
    answers: Arc<Mutex<VecDeque<Vec<IpAddr>>>>,
    pub asked: Arc<AtomicUsize>,
}

impl Scripted {
    pub fn new(answers: &[&[&str]]) -> Self {
        let answers = answers.iter().map(|answer| answer.iter().map(|address| address.parse().unwrap()).collect());
        Self { answers: Arc::new(Mutex::new(answers.collect())), asked: Arc::default() }
    }
}

impl Resolve for Scripted {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, Unresolvable>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if name == "silent.example" {
                std::future::pending::<()>().await;
            }
            self.answers.lock().unwrap().pop_front().ok_or(Unresolvable::NoAddress)
        })
    }
}
