//! Destinations: a real HTTP server that behaves as its path says, and records the deliveries.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::patience::PATIENCE;

/// One received delivery.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub at: Instant,
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Delivery {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn attempt(&self) -> (String, String) {
        (self.header("webhook-id").to_owned(), self.header("hookledger-attempt").to_owned())
    }
}

/// A server on a port of this machine.
#[derive(Clone)]
pub struct Sink {
    pub address: std::net::SocketAddr,
    received: Arc<Mutex<Vec<Delivery>>>,
    /// `/switch` answers 200 once this is set, and 500 before.
    pub repaired: Arc<AtomicBool>,
}

impl Sink {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = Self { address: listener.local_addr().unwrap(), received: Arc::default(), repaired: Arc::default() };
        let serving = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sink = serving.clone();
                tokio::spawn(async move { drop(sink.serve(stream).await) });
            }
        });
        sink
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn received(&self) -> Vec<Delivery> {
        self.received.lock().unwrap().clone()
    }

    pub fn at(&self, path: &str) -> Vec<Delivery> {
        self.received().into_iter().filter(|delivery| delivery.path == path).collect()
    }

    /// Waits for that many deliveries to a path.
    pub async fn until(&self, path: &str, count: usize) -> Vec<Delivery> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let deliveries = self.at(path);
            if deliveries.len() >= count {
                return deliveries;
            }
            assert!(Instant::now() < deadline, "{} of {count} deliveries came to {path}", deliveries.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut input = Vec::new();
        loop {
            let Some((head, rest)) = read_head(&mut stream, input).await? else { return Ok(()) };
            let mut lines = head.lines();
            let path = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
            let headers: HashMap<String, String> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect();
            let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            let mut body = rest;
            while body.len() < length {
                if stream.read_buf(&mut body).await? == 0 {
                    return Ok(());
                }
            }
            input = body.split_off(length);
            let delivery = Delivery { at: Instant::now(), path: path.clone(), headers, body };
            self.received.lock().unwrap().push(delivery);
            self.answer(&mut stream, &path).await?;
        }
    }

    async fn answer(&self, stream: &mut TcpStream, path: &str) -> std::io::Result<()> {
        let answer = |status: &str, body: &str| {
            format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
        };
        match path.split('?').next().unwrap_or_default() {
            "/hang" => tokio::time::sleep(Duration::from_secs(600)).await,
            "/gigabyte" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n").await?;
                let chunk = vec![b'x'; 1 << 20];
                for _ in 0..1024 {
                    stream.write_all(&chunk).await?;
                }
            }
            "/drip" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await?;
                for _ in 0..600 {
                    stream.write_all(b"x").await?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            "/reset" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc").await?;
                #[expect(deprecated, reason = "it is what sends a reset")]
                stream.set_linger(Some(Duration::ZERO))?;
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            "/redirect" => {
                stream.write_all(b"HTTP/1.1 302 Found\r\nlocation: /redirect\r\ncontent-length: 0\r\n\r\n").await?;
            }
            "/busy" => {
                stream
                    .write_all(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1000\r\ncontent-length: 0\r\n\r\n")
                    .await?;
            }
            "/switch" if self.repaired.load(Ordering::SeqCst) => stream.write_all(&answer("200 OK", "fine")).await?,
            "/switch" | "/500" => stream.write_all(&answer("500 Internal Server Error", "out of <b>order</b>")).await?,
            "/410" => stream.write_all(&answer("410 Gone", "")).await?,
            // The first answer is late.
            "/late" => {
                if self.at("/late").len() == 1 {
                    tokio::time::sleep(Duration::from_secs(4)).await;
                }
                stream.write_all(&answer("200 OK", "ok")).await?;
            }
            "/slow" => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                stream.write_all(&answer("200 OK", "ok")).await?;
            }
            _ => stream.write_all(&answer("200 OK", "ok")).await?,
        }
        Ok(())
    }
}

/// The next head, and the bytes after it.
async fn read_head(stream: &mut TcpStream, mut input: Vec<u8>) -> std::io::Result<Option<(String, Vec<u8>)>> {
    loop {
        if let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = input.split_off(end + 4);
            return Ok(Some((String::from_utf8_lossy(&input[..end]).into_owned(), rest)));
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(None);
        }
    }
}
