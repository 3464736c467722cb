//! Text search in webhooks: in their IDs and types, which a read model has, and in their bodies, which are
//! stored beside the log. No index contains bodies, so a search is bounded in the number of webhooks and in
//! time, and says how far it came.

use std::collections::HashSet;
use std::time::Duration;

use hookledger_aggregates::{OrganizationId, WebhookId};
use hookledger_projections::webhook_logs::{self, Candidate, WebhookFilter, WebhookKey, WebhookLog};
use hookledger_projections::{Page, PageRequest};
use tokio::time::Instant;

use crate::log::bodies_containing;
use crate::platform::store::Tenant;

/// Webhooks examined per search.
const WINDOW: i64 = 10_000;
/// Webhooks whose bodies are examined in one statement.
const CHUNK: usize = 500;
/// Larger bodies are not examined.
const MAX_BODY: i64 = 1 << 20;
/// Bytes of bodies per search, and its approximate time limit.
const MAX_BYTES: i64 = 256 << 20;
const LIMIT: Duration = Duration::from_secs(2);

/// Result of a search.
pub struct Found {
    pub page: Page<WebhookLog>,
    /// The last webhook examined, if there are more and the page is not full.
    pub searched_to: Option<WebhookKey>,
}

/// The webhooks that match the filter and contain the text. If the text is an ID, only that webhook;
/// otherwise those with the text in their ID, type or body.
pub async fn webhooks(
    tenant: &mut Tenant,
    organization: OrganizationId,
    filter: &WebhookFilter,
    text: &str,
    page: PageRequest<WebhookKey>,
) -> Result<Found, sqlx::Error> {
    let mut named = webhook_logs::by_identity(&mut **tenant, organization, text).await?;
    named.retain(|row| filter.matches(row));
    if !named.is_empty() {
        return Ok(Found { page: of_named(named, &page), searched_to: None });
    }
    let candidates = webhook_logs::candidates(&mut **tenant, organization, filter, text, page, WINDOW).await?;
    let (hits, looked_at) = search(tenant, organization, &candidates, text, page.limit).await?;
    let ids: Vec<WebhookId> = hits.iter().map(|hit| WebhookId::new(hit.webhook_id)).collect();
    let mut rows = webhook_logs::find_many(&mut **tenant, organization, &ids).await?;
    rows.sort_by_key(|row| (row.received_at, row.position));
    if !page.backward {
        rows.reverse();
    }
    let found = Page::from_overfull(rows, &page);
    let window_is_full = i64::try_from(candidates.len()).is_ok_and(|len| len >= WINDOW);
    let more_to_look_at = looked_at < candidates.len() || window_is_full;
    let last = candidates[..looked_at].last().map(|candidate| (candidate.received_at, candidate.position));
    let searched_to = last.filter(|_| !found.has_more && more_to_look_at);
    let has_more = found.has_more || searched_to.is_some();
    Ok(Found { page: Page { has_more, ..found }, searched_to })
}

/// Webhooks that contain the text, up to one more than the limit, and the number examined.
async fn search<'a>(
    tenant: &mut Tenant,
    organization: OrganizationId,
    candidates: &'a [Candidate],
    text: &str,
    limit: i64,
) -> Result<(Vec<&'a Candidate>, usize), sqlx::Error> {
    let enough = usize::try_from(limit).unwrap_or_default() + 1;
    let (began, mut bytes, mut looked_at) = (Instant::now(), 0, 0);
    let mut hits = Vec::new();
    for chunk in candidates.chunks(CHUNK) {
        if hits.len() >= enough || bytes > MAX_BYTES || began.elapsed() > LIMIT {
            break;
        }
        let open = |candidate: &&Candidate| !candidate.named && candidate.body_size <= MAX_BODY;
        let positions: Vec<i64> = chunk.iter().filter(open).map(|open| open.position).collect();
        bytes += chunk.iter().filter(open).map(|candidate| candidate.body_size).sum::<i64>();
        let with_text = bodies_containing(&mut **tenant, organization, &positions, text).await?;
        let with_text: HashSet<i64> = with_text.into_iter().collect();
        let has_text = |candidate: &&Candidate| candidate.named || with_text.contains(&candidate.position);
        hits.extend(chunk.iter().filter(has_text));
        looked_at += chunk.len();
    }
    hits.truncate(enough);
    Ok((hits, looked_at))
}

/// The page of the few webhooks with that ID.
fn of_named(mut rows: Vec<WebhookLog>, page: &PageRequest<WebhookKey>) -> Page<WebhookLog> {
    let key = |row: &WebhookLog| (row.received_at, row.position);
    rows.sort_by_key(key);
    if !page.backward {
        rows.reverse();
    }
    if let Some(from) = page.from {
        rows.retain(|row| if page.backward { key(row) > from } else { key(row) < from });
    }
    Page::from_overfull(rows, page)
}
