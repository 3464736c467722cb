//! Text in webhooks: in their ids and types, which a read model has, and in their bodies, which lie
//! beside the log. No index holds bodies, so a search is bounded: it looks at so many webhooks, for so
//! long, and says how far it came.

use std::collections::HashSet;
use std::time::Duration;

use hookledger_aggregates::{OrganizationId, WebhookId};
use hookledger_projections::webhook_logs::{self, Candidate, WebhookFilter, WebhookKey, WebhookLog};
use hookledger_projections::{Page, PageRequest};
use tokio::time::Instant;

use crate::log::bodies_containing;
use crate::platform::store::Tenant;

/// Webhooks that one search looks at.
const WINDOW: i64 = 10_000;
/// Webhooks whose bodies are looked at in one statement.
const CHUNK: usize = 500;
/// A larger body is not looked into.
const MAX_BODY: i64 = 1 << 20;
/// Bytes of bodies that one search looks through, and how long it takes, by and large.
const MAX_BYTES: i64 = 256 << 20;
const LIMIT: Duration = Duration::from_secs(2);

/// What a search found.
pub struct Found {
    pub page: Page<WebhookLog>,
    /// The last webhook that was looked at, where there are more and the page is not full.
    pub searched_to: Option<WebhookKey>,
}

/// The webhooks that match the filter and have the text: the one that is named, where the text is
/// an id; else those in whose ids, types or bodies it is.
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

/// Those that have the text, up to one more than the limit, and how many were looked at.
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

/// The page of the few that an id names.
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
