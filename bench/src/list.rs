//! The list: how long a page of 1,000 webhooks takes in an organization with 1,000,000.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::json;

use crate::contender::Contender as _;
use crate::exchange::Connection;
use crate::hookledger::Hookledger;

/// Webhooks per page, and pages requested one after another.
const PAGE: usize = 1_000;
const PAGES: usize = 300;
const WARM_UP: usize = 30;
/// The fields that a dashboard shows.
const QUERY: &str = "query($first: Int) { organization(slug: \"bench-0\") { webhooks(first: $first) { \
     pageInfo { hasNextPage endCursor } nodes { id webhookId eventType status signatureValid retryCount receivedAt \
     processedAt errorMessage duplicateCount provider { providerName } } } } }";
/// Copies of a received webhook, as if they had come before it, a second apart.
const FILL: &str = "insert into webhook_logs
         (organization_id, webhook_id, position, applied_position, provider_id, provider_event_id, event_type,
          body_sha256, body_size, content_type, signature_received, signature_valid, status, retry_count,
          error_message, received_at, updated_at, processed_at, next_retry_at, dead_lettered_at, duplicate_count,
          body_differs)
     select w.organization_id, gen_random_uuid(), w.position - n, w.applied_position, w.provider_id,
            gen_random_uuid()::text, w.event_type, w.body_sha256, w.body_size, w.content_type, w.signature_received,
            w.signature_valid, w.status, w.retry_count, w.error_message, w.received_at - n * interval '1 s', w.updated_at,
            w.processed_at, w.next_retry_at, w.dead_lettered_at, w.duplicate_count, w.body_differs
     from (select l.* from webhook_logs l join organizations o on o.id = l.organization_id
           where o.slug = 'bench-0' limit 1) w, generate_series(1, $1) n";

#[derive(Debug, Clone, Copy, Serialize)]
pub struct ListFigures {
    pub rows: i64,
    pub page: usize,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub max_ms: f64,
}

impl ListFigures {
    /// Fills the read model and requests pages, one at a time.
    pub async fn measure(hookledger: &mut Hookledger, rows: i64) -> Result<Self> {
        let running = hookledger.start().await?;
        println!("making a list of {rows} webhooks");
        hookledger.fill(FILL, rows).await?;
        let answer = hookledger.graphql(QUERY, json!({ "first": PAGE })).await?;
        let nodes = answer["organization"]["webhooks"]["nodes"].as_array().map_or(0, Vec::len);
        ensure!(nodes == PAGE, "a page has {nodes} webhooks");
        let body = json!({ "query": QUERY, "variables": { "first": PAGE } }).to_string();
        let request = request(&running.address.to_string(), hookledger.session()?, &body);
        let mut connection = Connection::open(running.address).await.context("the list")?;
        let mut took = Vec::with_capacity(PAGES);
        for page in 0..WARM_UP + PAGES {
            let started = Instant::now();
            connection.send(&request).await.context("the list")?;
            if page >= WARM_UP {
                took.push(started.elapsed());
            }
        }
        took.sort_unstable();
        let at = |percent: usize| milliseconds(took[(took.len() * percent).div_ceil(100) - 1]);
        Ok(Self { rows, page: PAGE, p50_ms: at(50), p95_ms: at(95), max_ms: at(100) })
    }

    pub fn print(&self) {
        println!(
            "a list of {} webhooks among {}: p50 {:.2} ms, p95 {:.2} ms, max {:.2} ms",
            self.page, self.rows, self.p50_ms, self.p95_ms, self.max_ms
        );
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn request(host: &str, session: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /graphql HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {session}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
