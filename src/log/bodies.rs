//! Stored requests, as they were received.

use hookledger_aggregates::{Label, OrganizationId, WebhookId};
use sqlx::PgExecutor;

use super::fresh::FreshBody;
use super::read::{ReadError, Reader};

/// Headers, body, event type, whether it is a test, hops.
type DeliverableRow = (Vec<u8>, Vec<u8>, Option<String>, bool, i64);

impl Reader {
    /// Size of a webhook's body in bytes, unless retention removed it.
    pub async fn body_size(
        &self,
        organization: OrganizationId,
        webhook: WebhookId,
    ) -> Result<Option<usize>, ReadError> {
        let size: Option<i32> = sqlx::query_scalar(
            "select octet_length(b.body)
             from commits c join webhook_bodies b on b.organization_id = c.organization_id and b.position = c.position
             where c.organization_id = $1 and c.aggregate_type = 'webhook' and c.stream_id = $2
               and c.partition = $3 and c.first_sequence = 1",
        )
        .bind(organization.uuid())
        .bind(webhook.uuid())
        .bind(organization.partition().number())
        .fetch_optional(&self.pool)
        .await?;
        Ok(size.and_then(|size| usize::try_from(size).ok()))
    }

    /// The request received at that position, unless retention removed it.
    pub async fn body_at(&self, organization: OrganizationId, position: i64) -> Result<Option<RawRequest>, ReadError> {
        let row: Option<(Vec<u8>, Vec<u8>)> =
            sqlx::query_as("select headers, body from webhook_bodies where organization_id = $1 and position = $2")
                .bind(organization.uuid())
                .bind(position)
                .fetch_optional(&self.pool)
                .await?;
        Ok(row.map(|(headers, body)| RawRequest { headers, body }))
    }

    /// A webhook in the form that is delivered, unless retention removed its body.
    pub async fn deliverable(
        &self,
        organization: OrganizationId,
        webhook: WebhookId,
    ) -> Result<Option<FreshBody>, ReadError> {
        let row: Option<DeliverableRow> =
            sqlx::query_as(
                "select b.headers, b.body, e.payload->>'eventType', coalesce((e.payload->>'isTest')::bool, false),
                        coalesce((e.payload->>'hops')::bigint, 0)
                 from commits c join webhook_bodies b on b.organization_id = c.organization_id and b.position = c.position
                 cross join lateral (
                     select split_part(split_part(c.data, E'\\n', 1), E'\\t', 3)::json as payload) e
                 where c.organization_id = $1 and c.aggregate_type = 'webhook' and c.stream_id = $2
                   and c.partition = $3 and c.first_sequence = 1",
            )
            .bind(organization.uuid())
            .bind(webhook.uuid())
            .bind(organization.partition().number())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|(headers, body, event_type, is_test, hops)| FreshBody {
            headers: headers.into(),
            is_test,
            hops: u32::try_from(hops).unwrap_or(u32::MAX),
            body: body.into(),
            event_type: event_type.as_deref().map(Label::new),
        }))
    }

    /// The raw headers and body of a webhook, unless retention removed them.
    pub async fn body(
        &self,
        organization: OrganizationId,
        webhook: WebhookId,
    ) -> Result<Option<RawRequest>, ReadError> {
        let row: Option<(Vec<u8>, Vec<u8>)> =
            sqlx::query_as(
                "select b.headers, b.body
                 from commits c join webhook_bodies b on b.organization_id = c.organization_id and b.position = c.position
                 where c.organization_id = $1 and c.aggregate_type = 'webhook' and c.stream_id = $2
                   and c.partition = $3 and c.first_sequence = 1",
            )
            .bind(organization.uuid())
            .bind(webhook.uuid())
            .bind(organization.partition().number())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|(headers, body)| RawRequest { headers, body }))
    }
}

/// Bodies of webhooks by the position of their first event, except those that retention removed.
pub async fn bodies_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    positions: &[i64],
) -> Result<Vec<(i64, Vec<u8>)>, sqlx::Error> {
    sqlx::query_as("select position, body from webhook_bodies where organization_id = $1 and position = any ($2)")
        .bind(organization.uuid())
        .bind(positions)
        .fetch_all(executor)
        .await
}

/// Webhooks among the given ones whose body contains a text, byte for byte; by position.
pub async fn bodies_containing(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    positions: &[i64],
    text: &str,
) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "select position from webhook_bodies
         where organization_id = $1 and position = any ($2) and position($3 in body) > 0",
    )
    .bind(organization.uuid())
    .bind(positions)
    .bind(text.as_bytes())
    .fetch_all(executor)
    .await
}

/// Headers of webhooks by position, except those that retention removed.
pub async fn headers_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    positions: &[i64],
) -> Result<Vec<(i64, Vec<(String, String)>)>, sqlx::Error> {
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "select position, headers from webhook_bodies where organization_id = $1 and position = any ($2)",
    )
    .bind(organization.uuid())
    .bind(positions)
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|(position, headers)| (position, header_pairs(&headers))).collect())
}

/// A request as it was received.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// `name:value` lines.
    pub headers: Vec<u8>,
    pub body: Vec<u8>,
}

/// Names and values of stored headers.
pub(super) fn header_lines(headers: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    headers.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], &line[colon + 1..]))
    })
}

fn header_pairs(headers: &[u8]) -> Vec<(String, String)> {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    header_lines(headers).map(|(name, value)| (text(name), text(value))).collect()
}

impl RawRequest {
    /// Value of the first header with that lower-case name, unchanged.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        header_lines(&self.headers).find_map(|(known, value)| (known == name.as_bytes()).then_some(value))
    }
}
