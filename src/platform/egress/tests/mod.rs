//! The client against real sockets that misbehave as much as possible.

mod names;
mod server;
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use rustls::RootCertStore;
use tokio::sync::oneshot;

use super::*;
use server::{Scripted, Server};

const PATIENCE: Duration = Duration::from_secs(300);
/// Long enough to connect on a slow machine.
const SHORT: Duration = Duration::from_secs(3);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn egress() -> Egress {
    egress_resolving(Scripted::default())
}

fn egress_resolving(names: Scripted) -> Egress {
    Egress::with("127.0.0.0/8".parse().unwrap(), Box::new(names), RootCertStore::empty()).unwrap()
}

fn outgoing(timeout: Duration) -> Outgoing {
    Outgoing { headers: HeaderMap::new(), body: Bytes::from_static(b"{}"), timeout }
}

async fn send(egress: &Egress, url: &str, timeout: Duration) -> Result<Answer, SendError> {
    egress.send(&Target::parse(url, egress.allow_list()).unwrap(), outgoing(timeout)).await
}

/// Posts to a server that handles each connection with this function.
async fn send_to(server: &Server, timeout: Duration) -> Result<Answer, SendError> {
    send(&egress(), &server.url(), timeout).await
}

#[tokio::test]
async fn a_request_arrives_as_it_was_given() {
    let server = Server::answering(OK).await;
    let egress = egress();
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("webhook-id", "msg_1"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("host", "elsewhere.example"),
        ("content-length", "9"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("expect", "100-continue"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let target = Target::parse(&server.url(), egress.allow_list()).unwrap();
    let sent = Outgoing { headers, body: Bytes::from_static(b"\x00\xffpayload=1"), timeout: PATIENCE };
    let answer = egress.send(&target, sent).await.unwrap();
    let expected =
        Answer { status: StatusCode::OK, retry_after: None, excerpt: Bytes::from_static(b"ok"), whole: true };
    assert_eq!(answer, expected);

    let received = &server.requests()[0];
    assert_eq!(received.body, b"\x00\xffpayload=1");
    let mut lines: Vec<_> = received.head.trim_end().split("\r\n").collect();
    lines[1..].sort_unstable();
    let host = format!("host: {}", server.address);
    assert_eq!(
        lines,
        [
            "POST /hook?a=b HTTP/1.1",
            "content-length: 11",
            "content-type: application/x-www-form-urlencoded",
            &host,
            "webhook-id: msg_1",
        ]
    );
}

#[tokio::test]
async fn an_empty_body_has_a_length() {
    let server = Server::answering(OK).await;
    let egress = egress();
    let target = Target::parse(&server.url(), egress.allow_list()).unwrap();
    let empty = Outgoing { body: Bytes::new(), ..outgoing(PATIENCE) };
    assert_eq!(egress.send(&target, empty).await.unwrap().status, 200);
    assert!(server.requests()[0].head.contains("content-length: 0\r\n"));
}

#[tokio::test]
async fn a_connection_is_used_again() {
    for answer in [
        OK,
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 500 Oops\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        let server = Server::answering(answer).await;
        let egress = egress();
        for _ in 0..20 {
            assert!(send(&egress, &server.url(), PATIENCE).await.unwrap().whole);
        }
        assert_eq!((server.connections(), server.requests().len(), egress.idle_connections()), (1, 20, 1), "{answer}");
    }
}

#[tokio::test]
async fn idle_connections_are_bounded() {
    let server = Server::answering(OK).await;
    let (egress, url) = (egress(), server.url());
    let all = futures::future::join_all((0..140).map(|_| send(&egress, &url, PATIENCE))).await;
    assert!(all.iter().all(Result::is_ok));
    assert!(egress.idle_connections() <= 128, "{}", egress.idle_connections());
}

#[tokio::test]
async fn a_connection_that_is_to_be_closed_is_not_kept() {
    for answer in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno",
    ] {
        let server = Server::answering(answer).await;
        let egress = egress();
        for _ in 0..2 {
            send(&egress, &server.url(), PATIENCE).await.unwrap();
            closed(&egress).await;
        }
        assert_eq!(server.connections(), 2, "{answer}");
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        peer.write(OK.as_bytes()).await;
    })
    .await;
    let egress = egress();
    for _ in 0..3 {
        assert_eq!(send(&egress, &server.url(), PATIENCE).await.unwrap().status, 200);
        closed(&egress).await;
    }
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_connection_that_was_closed_as_it_was_used_again_does_not_fail_the_attempt() {
    for resets in [false, true] {
        let server = Server::start(move |mut peer| async move {
            peer.request().await;
            peer.write(OK.as_bytes()).await;
            peer.request().await;
            if resets {
                peer.reset();
            }
        })
        .await;
        let egress = egress();
        for _ in 0..3 {
            assert_eq!(send(&egress, &server.url(), PATIENCE).await.unwrap().status, 200);
        }
        // The second and third request are read by a connection that closes, and again by a new one.
        assert_eq!((server.connections(), server.requests().len()), (3, 5), "resets: {resets}");
    }
}

#[tokio::test]
async fn a_request_is_sent_again_once_and_only_where_no_byte_of_an_answer_came() {
    // A new connection that ends without an answer.
    let closing = Server::start(|mut peer| async move {
        peer.request().await;
    })
    .await;
    assert_eq!(send_to(&closing, PATIENCE).await, Err(SendError::Broken(Broken::Closed)));
    assert_eq!((closing.connections(), closing.requests().len()), (1, 1));

    // A reused connection that ends within its answer.
    let breaking = Server::start(|mut peer| async move {
        peer.request().await;
        peer.write(OK.as_bytes()).await;
        peer.request().await;
        peer.write(b"HTTP/1.1 20").await;
    })
    .await;
    let egress = egress();
    assert_eq!(send(&egress, &breaking.url(), PATIENCE).await.unwrap().status, 200);
    assert_eq!(send(&egress, &breaking.url(), PATIENCE).await, Err(SendError::Broken(Broken::Closed)));
    assert_eq!((breaking.connections(), breaking.requests().len()), (1, 2));
}

#[tokio::test]
async fn a_connection_is_not_used_for_longer_than_the_destination_keeps_it() {
    let brief = Server::answering("HTTP/1.1 200 OK\r\nkeep-alive: timeout=1\r\ncontent-length: 2\r\n\r\nok").await;
    let egress = egress();
    for _ in 0..2 {
        assert_eq!(send(&egress, &brief.url(), PATIENCE).await.unwrap().status, 200);
        assert_eq!(egress.idle_connections(), 0);
    }
    assert_eq!(brief.connections(), 2);
}

#[tokio::test]
async fn an_answer_is_judged_by_its_status_whatever_its_other_headers_are() {
    let large = format!("x-large: {}", "y".repeat(64 << 10));
    let many: Vec<_> = (0..300).map(|n| format!("x-{n}: y")).collect();
    for head in [
        "x-folded: one\r\n two\r\n\tthree",
        "x-folded:\r\n one",
        "x-policy: default-src 'self';\r\n  script-src 'none';\r\n",
        "x name with spaces: y",
        "x-space-before-colon : y",
        "no colon at all",
        "x-\u{fc}mlaut: y",
        ": no name",
        "x-empty:",
        "x-control: a\u{1}b",
        "date: yesterday",
        "content-type: what?",
        "set-cookie: a=b\r\nset-cookie: c=d",
        &large,
        &many.join("\r\n"),
    ] {
        let head = head.trim_end();
        let server = Server::answering(format!("HTTP/1.1 200 OK\r\n{head}\r\ncontent-length: 2\r\n\r\nok")).await;
        let answer = send_to(&server, PATIENCE).await;
        let start = &head[..head.len().min(60)];
        let answer = answer.unwrap_or_else(|error| panic!("{start:?}: {error}"));
        assert_eq!((answer.status.as_u16(), &answer.excerpt[..]), (200, &b"ok"[..]), "{start:?}");
    }
    for answer in [
        "HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 Sch\u{f6}n\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\n\r\nok",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 102 Processing\r\nx: y\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding : chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        let server = Server::answering(answer).await;
        let received = send_to(&server, PATIENCE).await.unwrap_or_else(|error| panic!("{answer:?}: {error}"));
        assert_eq!((received.status.as_u16(), &received.excerpt[..]), (200, &b"ok"[..]), "{answer:?}");
    }
}

#[tokio::test]
async fn a_destination_that_hangs_before_its_answer_times_out() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        peer.gone().await;
    })
    .await;
    let error = send_to(&server, SHORT).await.unwrap_err();
    assert_eq!((error.kind(), &error), (Kind::NoAnswer, &SendError::TimedOut(SHORT)));
    assert_eq!(error.to_string(), "Timed out: the destination did not respond within 3 s.");
}

#[tokio::test]
async fn a_destination_that_never_reads_is_let_go() {
    let (tell, told) = oneshot::channel();
    let tell = Arc::new(std::sync::Mutex::new(Some(tell)));
    let (may_read, read_now) = tokio::sync::watch::channel(false);
    let server = Server::start(move |mut peer| {
        let (tell, mut read_now) = (tell.lock().unwrap().take().unwrap(), read_now.clone());
        async move {
            let _ = read_now.wait_for(|now| *now).await;
            peer.gone().await;
            let _ = tell.send(());
        }
    })
    .await;
    let egress = egress();
    let target = Target::parse(&server.url(), egress.allow_list()).unwrap();
    let large = Outgoing { body: vec![b'x'; 16 << 20].into(), ..outgoing(SHORT) };
    assert_eq!(egress.send(&target, large).await, Err(SendError::TimedOut(SHORT)));
    // Our side is closed although it could not write everything.
    may_read.send(true).unwrap();
    tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_body_that_hangs_does_not_fail_the_attempt() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart").await;
        peer.gone().await;
    })
    .await;
    let answer = send_to(&server, SHORT).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.excerpt[..], answer.whole), (200, &b"part"[..], false));
}

#[tokio::test]
async fn a_byte_a_second_is_cut_after_the_grace() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        peer.write(b"HTTP/1.1 201 Created\r\ncontent-length: 100\r\n\r\n").await;
        while peer.write(b"x").await {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    let started = Instant::now();
    let answer = send_to(&server, PATIENCE).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.whole), (201, false));
    assert!((1..=4).contains(&answer.excerpt.len()), "{:?}", answer.excerpt);
    assert!(started.elapsed() >= BODY_GRACE);
}

#[tokio::test]
async fn a_gigabyte_is_cut_at_the_excerpt() {
    for framing in ["content-length: 1073741824", "transfer-encoding: chunked", "connection: close"] {
        let (tell, told) = oneshot::channel();
        let tell = Arc::new(std::sync::Mutex::new(Some(tell)));
        let server = Server::start(move |mut peer| {
            let tell = tell.lock().unwrap().take().unwrap();
            async move {
                peer.request().await;
                peer.write(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes()).await;
                let chunk = [&b"10000\r\n"[..], &vec![b'x'; 0x10000], b"\r\n"].concat();
                let mut written = 0;
                while written < 1 << 30 && peer.write(&chunk).await {
                    written += chunk.len();
                }
                let _ = tell.send(written);
            }
        })
        .await;
        let egress = egress();
        let answer = send(&egress, &server.url(), PATIENCE).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.excerpt.len(), answer.whole), (200, EXCERPT_BYTES, false));
        let written = tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap();
        assert!(written < 64 << 20, "{framing}: {written} bytes went out");
        assert_eq!(egress.idle_connections(), 0);
    }
}

#[tokio::test]
async fn an_excerpt_that_is_exactly_the_body_is_whole() {
    for (length, whole) in [(EXCERPT_BYTES - 1, true), (EXCERPT_BYTES, true), (EXCERPT_BYTES + 1, false)] {
        let body = "x".repeat(length);
        for answer in [
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"),
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"),
        ] {
            let answer = send_to(&Server::answering(answer).await, PATIENCE).await.unwrap();
            assert_eq!((answer.excerpt.len(), answer.whole), (length.min(EXCERPT_BYTES), whole));
        }
    }
}

#[tokio::test]
async fn a_reset_after_the_status_does_not_fail_the_attempt() {
    for head in ["HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart", "HTTP/1.1 200 OK\r\n\r\npart", OK] {
        let server = Server::start(move |mut peer| async move {
            peer.request().await;
            peer.write(head.as_bytes()).await;
            peer.reset();
        })
        .await;
        assert_eq!(send_to(&server, PATIENCE).await.unwrap().status, 200, "{head}");
    }
}

#[tokio::test]
async fn an_answer_before_the_request_was_read_is_heard() {
    let server = Server::start(|mut peer| async move {
        let mut beginning = [0; 1024];
        tokio::io::AsyncReadExt::read_exact(&mut peer.stream, &mut beginning).await.unwrap();
        peer.write(b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let egress = egress();
    let target = Target::parse(&server.url(), egress.allow_list()).unwrap();
    for _ in 0..20 {
        let large = Outgoing { body: vec![b'x'; 8 << 20].into(), ..outgoing(PATIENCE) };
        assert_eq!(egress.send(&target, large).await.unwrap().status, 413);
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let server = Server::answering("HTTP/1.1 307 Temporary\r\nlocation: /hook?a=b\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(send_to(&server, PATIENCE).await.unwrap().status, 307);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn what_is_not_http_is_said_to_be_broken() {
    for (garbage, expected) in [
        ("SSH-2.0-OpenSSH_9.7\r\n\r\n", Broken::NotHttp),
        ("\x15\x03\x01\x00\x02\x02\x16 and so on\r\n\r\n", Broken::NotHttp),
        ("HTTP/1.1 2000 Too much\r\n\r\n", Broken::NotHttp),
        ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", Broken::NotHttp),
        ("HTTP/1.1 200 OK\r\ncontent-le", Broken::Closed),
        ("", Broken::Closed),
    ] {
        let server = Server::start(move |mut peer| async move {
            peer.request().await;
            peer.write(garbage.as_bytes()).await;
        })
        .await;
        assert_eq!(send_to(&server, PATIENCE).await, Err(SendError::Broken(expected)), "{garbage:?}");
    }
}

#[tokio::test]
async fn interim_answers_are_skipped_within_bounds() {
    let some = format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{OK}");
    assert_eq!(send_to(&Server::answering(some).await, PATIENCE).await.unwrap().status, 200);

    let flood = Server::start(|mut peer| async move {
        peer.request().await;
        while peer.write("HTTP/1.1 100 Continue\r\n\r\n".repeat(100).as_bytes()).await {}
    })
    .await;
    let error = send_to(&flood, PATIENCE).await.unwrap_err();
    assert_eq!((error.kind(), &error), (Kind::BadAnswer, &SendError::Broken(Broken::TooMuch)));
}

#[tokio::test]
async fn huge_headers_are_refused() {
    for header in
        ["x: ".to_owned() + &"y".repeat(400 << 10) + "\r\n", "x: y\r\n".repeat(20_000), "x: y\r\n".repeat(2_000)]
    {
        let server = Server::answering(format!("HTTP/1.1 200 OK\r\n{header}content-length: 0\r\n\r\n")).await;
        assert_eq!(send_to(&server, PATIENCE).await, Err(SendError::Broken(Broken::TooMuch)));
    }
    let tolerable = format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n", "y".repeat(32 << 10));
    assert_eq!(send_to(&Server::answering(tolerable).await, PATIENCE).await.unwrap().status, 200);
}

#[tokio::test]
async fn retry_after_is_passed_on() {
    for (value, expected) in
        [("120", Some("120")), ("Wed, 21 Oct 2026 07:28:00 GMT", Some("Wed, 21 Oct 2026 07:28:00 GMT"))]
    {
        let answer = format!("HTTP/1.1 503 Busy\r\nretry-after: {value}\r\ncontent-length: 0\r\n\r\n");
        let answer = send_to(&Server::answering(answer).await, PATIENCE).await.unwrap();
        assert_eq!(answer.retry_after.as_deref(), expected);
    }
    let long = format!("HTTP/1.1 503 Busy\r\nretry-after: {}\r\ncontent-length: 0\r\n\r\n", "9".repeat(1_000));
    assert_eq!(send_to(&Server::answering(long).await, PATIENCE).await.unwrap().retry_after, None);
}

/// Waits until the pool has noticed that its connections were closed.
async fn closed(egress: &Egress) {
    tokio::time::timeout(PATIENCE, async {
        loop {
            egress.0.pool.sweep();
            if egress.idle_connections() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("connections stay idle");
}
