//! The destinations: a real HTTP server that behaves according to the path, and records requests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::organizations::Behaviour;
use crate::record::{Arrival, Record};

/// Serves until the runtime ends.
pub async fn start(record: Arc<Record>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let record = Arc::clone(&record);
                    tokio::spawn(async move { drop(serve(stream, &record).await) });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    Ok(address)
}

async fn serve(mut stream: TcpStream, record: &Record) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::new();
    loop {
        let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let mut body = input.split_off(end + 4);
        let head = String::from_utf8_lossy(&input).into_owned();
        let headers: HashMap<String, &str> = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
            .collect();
        let header = |name: &str| headers.get(name).copied().unwrap_or_default();
        let length: usize = header("content-length").parse().unwrap_or(0);
        while body.len() < length {
            if stream.read_buf(&mut body).await? == 0 {
                return Ok(());
            }
        }
        input = body.split_off(length);
        let path = head.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
        let Some(organization) = Behaviour::of_slug(path) else { return Ok(()) };
        let (arrival, before) = record.arrival(Arrival {
            organization,
            webhook: header("webhook-id").parse().unwrap_or_default(),
            attempt: header("hookledger-attempt").parse().unwrap_or_default(),
            at: Instant::now(),
            answered: None,
            body_sha256: hex::encode(Sha256::digest(&body)),
        });
        let status = match organization {
            Behaviour::Hanging => {
                // Waits until the sender gives up.
                let _ = stream.read_buf(&mut input).await?;
                return Ok(());
            }
            Behaviour::Closing if before == 0 => return Ok(()),
            Behaviour::Flaky if before == 0 => 500,
            Behaviour::Slow => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                200
            }
            _ => 200,
        };
        stream.write_all(format!("HTTP/1.1 {status} Answer\r\ncontent-length: 2\r\n\r\nok").as_bytes()).await?;
        record.answered(arrival, status);
    }
}
