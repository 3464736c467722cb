//! The target that is the HTTP edge; apart from the others, since it needs the server.

use hookledger::receive::{BodyBudget, Owner, read_body};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use warp::Filter as _;

/// A connection: the bytes before the first `|` say how they are cut up, the rest is sent. Whatever
/// it is, there is an answer of HTTP or none, and the connection ends. Answers what came back.
pub async fn connection(data: &[u8]) -> Vec<u8> {
    const STATUSES: [&str; 8] = ["100", "200", "400", "404", "413", "431", "501", "503"];
    let cut = data.iter().position(|byte| *byte == b'|').unwrap_or(0);
    let (cuts, bytes) = (&data[..cut], data.get(cut + 1..).unwrap_or_default());
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let budget = BodyBudget::new(1 << 20, 1 << 10);
    let routes = warp::path!("webhooks" / String / String)
        .and(warp::body::stream())
        .then(move |_, _, body| {
            let budget = budget.clone();
            async move {
                let status = match read_body(body, None, 1 << 10, budget.for_webhook(Owner::default(), None)).await {
                    Ok(_) => http::StatusCode::OK,
                    Err(hookledger::receive::BodyError::TooLarge { .. }) => http::StatusCode::PAYLOAD_TOO_LARGE,
                    Err(_) => http::StatusCode::BAD_REQUEST,
                };
                let mut response = warp::reply::Response::new("".into());
                *response.status_mut() = status;
                response
            }
        })
        .recover(|_| async {
            let mut response = warp::reply::Response::new("".into());
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            Ok::<_, std::convert::Infallible>(response)
        })
        .unify();
    let serving = hookledger::api::http::serve_connection(server, [192, 0, 2, 1].into(), routes);
    let talking = async {
        let mut rest = bytes;
        for cut in cuts.iter().map(|cut| usize::from(*cut)).chain(std::iter::once(usize::MAX)) {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            rest = later;
            if client.write_all(now).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = client.shutdown().await;
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        answer
    };
    let both = tokio::time::timeout(std::time::Duration::from_secs(60), async { tokio::join!(serving, talking).1 });
    let answer = both.await.expect("the connection ends");
    if let Some(status) = answer.strip_prefix(b"HTTP/1.1 ").or(answer.strip_prefix(b"HTTP/1.0 ")) {
        let status = std::str::from_utf8(&status[..3]).unwrap();
        assert!(STATUSES.contains(&status), "{status}");
    } else {
        assert!(answer.is_empty(), "{:?}", String::from_utf8_lossy(&answer));
    }
    answer
}
