//! `GET /api/organizations/{slug}/audit.csv` and `audit.json`: an organization's audit trail as a file,
//! newest first, written page by page. The export itself is recorded in the trail.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Datelike as _, Utc};
use hookledger_aggregates::access::{Access, AccessCommand, AccessEvent};
use hookledger_aggregates::{Label, OrganizationId, UserId};
use hookledger_projections::audit_logs::{self, AuditEntry, AuditFilter, AuditKey};
use hookledger_projections::{Page, PageRequest, organizations};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::json;
use tokio::sync::mpsc;
use warp::reply::Response;
use warp::{Filter, Reply as _};

use super::session::viewer_of;
use super::{Answer, Services, error, person, with};
use crate::identity::Client;
use crate::platform::store::{Reading, TenantError, Tenants};

/// Entries in memory at once.
const PAGE: i64 = 500;
/// How long to wait for the trail to be complete before the export.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(5);
/// How long a client may take for a page.
const READ_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
enum Format {
    Csv,
    Json,
}

pub(super) fn route(services: Arc<Services>) -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    let csv = warp::path!("api" / "organizations" / String / "audit.csv").map(|slug| (slug, Format::Csv));
    let json = warp::path!("api" / "organizations" / String / "audit.json").map(|slug| (slug, Format::Json));
    csv.or(json)
        .unify()
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(person())
        .and(with(services))
        .then(|(slug, format): (String, Format), method, headers, query: String, client, services: Arc<Services>| async move {
            match export(&slug, format, method, headers, &query, client, &services).await {
                Ok(response) => response,
                Err(answer) => answer.into_response(),
            }
        })
}

async fn export(
    slug: &str,
    format: Format,
    method: Method,
    headers: HeaderMap,
    query: &str,
    client: Client,
    services: &Services,
) -> Result<Response, Answer> {
    if method != Method::GET {
        return Err(Answer::method_not_allowed("GET"));
    }
    let viewer = viewer_of(services, &headers, client).await?;
    let id = OrganizationId::from_slug(slug);
    let app = &services.app;
    if !viewer.manages(id) {
        app.refusals.action(viewer.home(), UserId::new(viewer.user.id), "exportAuditLog", &viewer.metadata());
        let sentence = "Only an admin of the organization can export its audit trail.";
        let forbidden = || error(StatusCode::FORBIDDEN, "forbidden", sentence);
        return Err(if viewer.sees(id) { forbidden() } else { Answer::not_found() });
    }
    let filter = filter(query)?;
    let tenants = app.tenants.asked_by(viewer.asker(), Reading::Page);
    let mut tenant = tenants.of(id).await.map_err(|error| unavailable(&error))?;
    let organization = organizations::find(&mut *tenant, id).await.map_err(|error| unavailable(&error))?;
    drop(tenant);
    let organization = organization.ok_or_else(Answer::not_found)?;
    let note = AccessCommand::Note(AccessEvent::AuditExported {
        format: Label::new(format.name()),
        filter: Label::new(&told(&filter).to_string()),
    });
    app.limits.export(UserId::new(viewer.user.id)).map_err(|too_often| {
        let sentence = "Too many exports. Try again later.";
        error(StatusCode::TOO_MANY_REQUESTS, "rate_limited", sentence).retry_after(too_often.retry_after)
    })?;
    // Recorded before anything is sent, so that the file begins with the export itself.
    let noted = app.commands.execute::<Access>(id, id.uuid(), note, &viewer.metadata()).await;
    if let Some(place) = noted.map_err(|error| unavailable(&error))? {
        let trail = app.checkpoints.wait_for(&["audit_logs"], place, CATCH_UP_LIMIT).await;
        if !trail.map_err(|error| unavailable(&error))? {
            return Err(unavailable(&"the audit trail is behind"));
        }
    }
    let (to_client, mut pages) = mpsc::channel(1);
    tokio::spawn(write(tenants, id, filter, format, to_client));
    let mut response =
        warp::reply::stream(futures::stream::poll_fn(move |context| pages.poll_recv(context))).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let disposition = format!("attachment; filename=\"audit-{}.{}\"", organization.slug, format.name());
    // A slug has only a-z, 0-9 and -.
    if let Ok(disposition) = HeaderValue::from_str(&disposition) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

/// Writes every page for as long as the client reads. An error aborts the answer, so that a partial file is
/// not mistaken for a complete one.
async fn write(
    tenants: Tenants,
    organization: OrganizationId,
    filter: AuditFilter,
    format: Format,
    to_client: mpsc::Sender<Result<Bytes, TenantError>>,
) {
    let mut after: Option<AuditKey> = None;
    let mut text = format.beginning().to_owned();
    loop {
        let request = PageRequest { from: after, limit: PAGE, backward: false };
        let page = page(&tenants, organization, &filter, request).await;
        let (chunk, more) = match page {
            Ok(page) => {
                for entry in &page.rows {
                    format.write(entry, after.is_none(), &mut text);
                    after = Some((entry.at, entry.partition, entry.position));
                }
                if !page.has_more {
                    text.push_str(format.end());
                }
                (Ok(Bytes::from(std::mem::take(&mut text))), page.has_more)
            }
            Err(error) => {
                tracing::error!(%error, "an export broke off");
                (Err(error), false)
            }
        };
        let sent = tokio::time::timeout(READ_LIMIT, to_client.send(chunk)).await;
        if !more || !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

async fn page(
    tenants: &Tenants,
    organization: OrganizationId,
    filter: &AuditFilter,
    request: PageRequest<AuditKey>,
) -> Result<Page<AuditEntry>, TenantError> {
    let mut tenant = tenants.of(organization).await?;
    Ok(audit_logs::list(&mut *tenant, organization, filter, request).await?)
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Json => "application/json",
        }
    }

    fn beginning(self) -> &'static str {
        match self {
            Self::Csv => concat!(
                "\u{feff}",
                "position,at,user_id,user_email,session_id,client,user_agent,action,resource_type,resource_id,old,new\r\n"
            ),
            Self::Json => "[",
        }
    }

    fn end(self) -> &'static str {
        match self {
            Self::Csv => "",
            Self::Json => "\n]\n",
        }
    }

    fn write(self, entry: &AuditEntry, is_first: bool, text: &mut String) {
        let position = format!("{}:{}", entry.partition, entry.position);
        let at = entry.at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        match self {
            Self::Csv => {
                let id = |id: Option<uuid::Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
                let part = |name: &str| entry.changes.0.get(name).map(ToString::to_string).unwrap_or_default();
                let cells = [
                    position,
                    at,
                    id(entry.user_id),
                    entry.user_email.clone().unwrap_or_default(),
                    id(entry.session_id),
                    entry.client.clone().unwrap_or_default(),
                    entry.agent.clone().unwrap_or_default(),
                    entry.action.clone(),
                    entry.resource_type.clone(),
                    entry.resource_id.to_string(),
                    part("old"),
                    part("new"),
                ];
                text.push_str(&cells.iter().map(|text| cell(text)).collect::<Vec<_>>().join(","));
                text.push_str("\r\n");
            }
            Self::Json => {
                let entry = json!({
                    "position": position,
                    "at": at,
                    "userId": entry.user_id,
                    "userEmail": entry.user_email,
                    "sessionId": entry.session_id,
                    "client": entry.client,
                    "userAgent": entry.agent,
                    "action": entry.action,
                    "resourceType": entry.resource_type,
                    "resourceId": entry.resource_id,
                    "changes": entry.changes.0,
                });
                text.push_str(if is_first { "\n" } else { ",\n" });
                text.push_str(&entry.to_string());
            }
        }
    }
}

/// A cell that no spreadsheet takes for a formula, by the same rule as the web's own export:
/// <https://owasp.org/www-community/attacks/CSV_Injection>.
fn cell(text: &str) -> String {
    let seen = text.trim_start_matches(|c: char| c.is_whitespace() || is_invisible(c));
    let is_formula = seen.starts_with(['=', '+', '-', '@', '|', '%', '＝', '＋', '－', '＠'])
        || text.starts_with(['\t', '\r', '\n']);
    let guard = if is_formula { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

/// Controls, formats and private use: characters that spreadsheets skip.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0001}'..='\u{e007f}' | '\u{f0000}'..='\u{10ffff}')
}

/// The filter of the query string; unknown names are ignored.
fn filter(query: &str) -> Result<AuditFilter, Answer> {
    let bad =
        |name: &str, form: &str| error(StatusCode::BAD_REQUEST, "bad_request", format!("`{name}` must be {form}."));
    let mut filter = AuditFilter::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let id = || value.parse().map(Some).map_err(|_| bad(&name, "a UUID"));
        let time = || {
            let time = DateTime::parse_from_rfc3339(&value);
            let time = time.ok().filter(|time| (1..=9999).contains(&time.with_timezone(&Utc).year()));
            let time = time.ok_or_else(|| bad(&name, "a time like 2026-01-31T00:00:00Z"));
            time.map(|time| Some(time.with_timezone(&Utc)))
        };
        let word = || {
            let good = value.len() <= 100 && !value.contains('\0');
            good.then(|| Some(value.to_string())).ok_or_else(|| bad(&name, "up to 100 characters"))
        };
        match name.as_ref() {
            "userId" => filter.user = id()?,
            "resourceId" => filter.resource = id()?,
            "action" => filter.action = word()?,
            "resourceType" => filter.resource_type = word()?,
            "from" => filter.from = time()?,
            "to" => filter.to = time()?,
            _ => {}
        }
    }
    Ok(filter)
}

/// The filter in the form recorded in the trail.
fn told(filter: &AuditFilter) -> serde_json::Value {
    let all = json!({
        "userId": filter.user, "resourceId": filter.resource, "action": filter.action,
        "resourceType": filter.resource_type, "from": filter.from, "to": filter.to,
    });
    match all {
        serde_json::Value::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        other => other,
    }
}

fn unavailable(reason: &dyn std::fmt::Display) -> Answer {
    tracing::error!(error = %reason, "an export failed");
    error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The export isn't available right now. Try again.")
        .retry_after(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula_or_ends_early() {
        for (text, expected) in [
            ("=1+1", "\"'=1+1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("-2", "\"'-2\""),
            ("+cmd|' /C calc'!A0", "\"'+cmd|' /C calc'!A0\""),
            ("\t=1", "\"'\t=1\""),
            (" =1", "\"' =1\""),
            ("\u{200b}\u{feff}=1", "\"'\u{200b}\u{feff}=1\""),
            ("|calc", "\"'|calc\""),
            ("%0A=1", "\"'%0A=1\""),
            ("\n", "\"'\n\""),
            ("a\",=1", "\"a\"\",=1\""),
            ("{\"role\":\"admin\"}", "\"{\"\"role\"\":\"\"admin\"\"}\""),
            ("", "\"\""),
        ] {
            assert_eq!(cell(text), expected);
        }
    }

    #[test]
    fn a_filter_is_read_and_told() {
        let read = filter("action=signed_in&from=2026-01-31T00%3A00%3A00Z&x=y").ok().unwrap();
        assert_eq!(told(&read), json!({ "action": "signed_in", "from": "2026-01-31T00:00:00Z" }));
        for bad in ["userId=1", "from=yesterday", "action=a%00"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
