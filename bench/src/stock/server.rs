//! The stock server: a warp route that verifies GitHub's signature and executes one command.

use std::sync::Arc;

use anyhow::Result;
use hmac::{Hmac, Mac as _};
use postgres_es::{PostgresCqrs, postgres_cqrs};
use serde_json::json;
use sha2::Sha256;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;
use warp::Filter as _;
use warp::http::StatusCode;
use warp::reply::{Reply as _, Response};

use super::aggregate::{Command, StockWebhook};
use crate::contender::SECRET;
use crate::options::StockArguments;

/// The table as postgres-es ships it in `db/init.sql`; neither snapshots nor views are used.
const SCHEMA: &str = "
create table if not exists events
(
    aggregate_type text                         not null,
    aggregate_id   text                         not null,
    sequence       bigint check (sequence >= 0) not null,
    event_type     text                         not null,
    event_version  text                         not null,
    payload        json                         not null,
    metadata       json                         not null,
    primary key (aggregate_type, aggregate_id, sequence)
)";

type Cqrs = Arc<PostgresCqrs<StockWebhook>>;

pub fn run(arguments: &StockArguments) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(arguments))
}

async fn serve(arguments: &StockArguments) -> Result<()> {
    let pool = pool(arguments).await?;
    let cqrs: Cqrs = Arc::new(postgres_cqrs(pool, vec![], ()));
    let ready = warp::get().and(warp::path!("readyz")).map(|| "ready");
    let receive = warp::post()
        .and(warp::path!("webhooks" / String / "github"))
        .and(warp::header("x-github-event"))
        .and(warp::header("x-github-delivery"))
        .and(warp::header("x-hub-signature-256"))
        .and(warp::body::bytes())
        .and(warp::any().map(move || Arc::clone(&cqrs)))
        .then(receive);
    warp::serve(receive.or(ready)).run(arguments.listen).await;
    Ok(())
}

/// `postgres_es::default_postgress_pool`, but without its fixed ten connections.
async fn pool(arguments: &StockArguments) -> Result<PgPool> {
    let options = PgPoolOptions::new().max_connections(arguments.pool);
    let pool = options.connect(&arguments.database_url).await?;
    sqlx::raw_sql(SCHEMA).execute(&pool).await?;
    Ok(pool)
}

async fn receive(
    _organization: String,
    event_type: String,
    delivery: String,
    signature: String,
    body: warp::hyper::body::Bytes,
    cqrs: Cqrs,
) -> Response {
    if !is_genuine(&signature, &body) {
        return answer(StatusCode::UNAUTHORIZED, &json!({ "code": "signature_invalid" }));
    }
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, delivery.as_bytes()).to_string();
    let payload = String::from_utf8_lossy(&body).into_owned();
    match cqrs.execute(&id, Command::Receive { event_type, delivery, payload }).await {
        Ok(()) => answer(StatusCode::OK, &json!({ "webhook_id": id, "status": "pending", "duplicate": false })),
        Err(error) => {
            eprintln!("webhook {id} was not stored: {error}");
            answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "code": "unavailable" }))
        }
    }
}

fn is_genuine(signature: &str, body: &[u8]) -> bool {
    let Some(Ok(claimed)) = signature.strip_prefix("sha256=").map(hex::decode) else { return false };
    Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())
        .is_ok_and(|mac| mac.chain_update(body).verify_slice(&claimed).is_ok())
}

fn answer(status: StatusCode, body: &serde_json::Value) -> Response {
    warp::reply::with_status(warp::reply::json(body), status).into_response()
}
