//! `GET /api/organizations/{slug}/ledger/…`: an organization's checkpoint, tiles and proofs, for its admins;
//! `GET /api/ledgers/{id}/…` the same for any tree, for super admins.
//!
//! `checkpoint`, `tile/…` and `tile/entries/…` are those of C2SP tlog-tiles, for clients of such logs; `key`
//! is the key that verifies checkpoints, `proof/inclusion?position=P` and `proof/consistency?from=N` are
//! proofs as JSON.

use std::sync::Arc;

use hookledger_aggregates::{OrganizationId, UserId};
use http::{HeaderMap, Method, StatusCode};
use serde_json::json;
use uuid::Uuid;
use warp::reply::Response;
use warp::{Filter, Reply as _};

use super::session::viewer_of;
use super::{Answer, Services, error, person, with};
use crate::api::graphql::Viewer;
use crate::audit::lookup::{self, Signed};
use crate::audit::loss;
use crate::audit::tree::{ProofError, SizedTile, TILE_WIDTH, TileId, hashes_to_bytes};
use crate::audit::{LedgerError, LedgerId};
use crate::identity::Client;
use crate::log::stored_at;
use crate::platform::store::{Reading, Tenant};

const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";
/// An entry of a bundle has a length of two bytes.
const LARGEST_ENTRY: usize = 65_535;

/// The owner of a tree, according to the path.
#[derive(Clone)]
enum Whose {
    Organization(String),
    Ledger(String),
}

pub(super) fn route(services: Arc<Services>) -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    let organization = warp::path!("api" / "organizations" / String / "ledger" / ..).map(Whose::Organization);
    let ledger = warp::path!("api" / "ledgers" / String / ..).map(Whose::Ledger);
    organization
        .or(ledger)
        .unify()
        .and(warp::path::tail())
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(person())
        .and(with(services))
        .then(
            |whose: Whose, tail: warp::path::Tail, method, headers, query: String, client, services: Arc<Services>| async move {
                let asked = Asked { whose, path: tail.as_str().to_owned(), query };
                answer(asked, method, headers, client, &services).await.unwrap_or_else(|answer| answer).into_response()
            },
        )
}

struct Asked {
    whose: Whose,
    path: String,
    query: String,
}

async fn answer(
    asked: Asked,
    method: Method,
    headers: HeaderMap,
    client: Client,
    services: &Services,
) -> Result<Answer, Answer> {
    if method != Method::GET {
        return Err(Answer::method_not_allowed("GET"));
    }
    let viewer = viewer_of(services, &headers, client).await?;
    let ledger = ledger_of(&asked.whose, &viewer, services)?;
    let ledgers = &services.app.ledgers;
    match asked.path.as_str() {
        "checkpoint" => {
            let signed = ledgers.fresh_checkpoint(ledger).await.map_err(refused)?;
            let signed = signed.ok_or_else(Answer::not_found)?;
            Ok(Answer::text(StatusCode::OK, TEXT, signed.note))
        }
        "key" => {
            let name = ledgers.origin(ledger).to_string();
            let keys: String = ledgers.public_keys().iter().map(|key| key.named(&name) + "\n").collect();
            Ok(Answer::text(StatusCode::OK, TEXT, keys))
        }
        "proof/inclusion" => {
            let mut rows = rows(services, &viewer, ledger).await?;
            let position = number(&asked.query, "position")?.ok_or_else(|| bad("`position` is missing."))?;
            let position = i64::try_from(position).map_err(|_| bad("`position` is too large."))?;
            let size = number(&asked.query, "size")?;
            let found = ledgers.inclusion(&mut rows, ledger, position, size).await.map_err(refused)?;
            let hashes: Vec<_> = found.proof.iter().map(ToString::to_string).collect();
            let mut told = checkpoint(&found.checkpoint);
            told["leafIndex"] = found.place.index.into();
            told["hashes"] = hashes.into();
            Ok(Answer::json(StatusCode::OK, &told))
        }
        "proof/consistency" => {
            let mut rows = rows(services, &viewer, ledger).await?;
            let from = number(&asked.query, "from")?.ok_or_else(|| bad("`from` is missing."))?;
            let to = number(&asked.query, "to")?;
            let found = ledgers.consistency(&mut rows, ledger, from, to).await.map_err(refused)?;
            let hashes: Vec<_> = found.proof.iter().map(ToString::to_string).collect();
            let mut told = checkpoint(&found.checkpoint);
            told["from"] = from.into();
            told["hashes"] = hashes.into();
            // A lost head is not in the tree, so nothing can be proved from it.
            let losses = loss::notes_of(&mut *rows, ledger).await.map_err(|error| failed(&error))?;
            if !losses.is_empty() {
                told["declaredLosses"] = losses.into();
            }
            Ok(Answer::json(StatusCode::OK, &told))
        }
        path => match path.strip_prefix("tile/").and_then(parse) {
            Some(Path::Hashes(tile)) => tile_bytes(services, &viewer, ledger, tile).await,
            Some(Path::Entries { index, width }) => entries(services, &viewer, ledger, index, width).await,
            None => Err(Answer::not_found()),
        },
    }
}

/// Viewers who may not see it get the same answer as for an unknown tree.
fn ledger_of(whose: &Whose, viewer: &Viewer, services: &Services) -> Result<LedgerId, Answer> {
    let ledger = match whose {
        Whose::Organization(slug) => LedgerId::organization(OrganizationId::from_slug(slug)),
        Whose::Ledger(id) if viewer.is_super_admin() => {
            LedgerId::from_uuid(id.parse::<Uuid>().map_err(|_| Answer::not_found())?)
        }
        Whose::Ledger(_) => return Err(Answer::not_found()),
    };
    if viewer.manages(ledger.owner()) {
        return Ok(ledger);
    }
    let app = &services.app;
    app.refusals.action(viewer.home(), UserId::new(viewer.user.id), "ledger", &viewer.metadata());
    let sentence = "Only an admin of the organization can see its ledger.";
    let forbidden = || error(StatusCode::FORBIDDEN, "forbidden", sentence);
    Err(if viewer.sees(ledger.owner()) { forbidden() } else { Answer::not_found() })
}

async fn rows(services: &Services, viewer: &Viewer, ledger: LedgerId) -> Result<Tenant, Answer> {
    let tenants = services.app.tenants.asked_by(viewer.asker(), Reading::Page);
    // Only super admins get this far for a tree with events of many organizations.
    let rows = if ledger.is_of_many() { tenants.everybody().await } else { tenants.of(ledger.owner()).await };
    rows.map_err(|error| failed(&error))
}

async fn tile_bytes(services: &Services, viewer: &Viewer, ledger: LedgerId, tile: SizedTile) -> Result<Answer, Answer> {
    let mut rows = rows(services, viewer, ledger).await?;
    let mut tiles = lookup::tiles(&mut *rows, ledger, &[tile]).await.map_err(|error| failed(&error))?;
    let hashes = tiles.remove(&tile.id).filter(|hashes| hashes.len() >= tile.width).ok_or_else(Answer::not_found)?;
    Ok(Answer::text(StatusCode::OK, BYTES, hashes_to_bytes(&hashes[..tile.width])))
}

/// The leaves themselves, each preceded by its length.
async fn entries(
    services: &Services,
    viewer: &Viewer,
    ledger: LedgerId,
    index: u64,
    width: usize,
) -> Result<Answer, Answer> {
    let first = index.checked_mul(TILE_WIDTH as u64).ok_or_else(Answer::not_found)?;
    let mut rows = rows(services, viewer, ledger).await?;
    let mut places = lookup::places(&mut *rows, ledger, first).await.map_err(|error| failed(&error))?;
    places.truncate(width);
    if places.len() < width || places.first().is_none_or(|place| place.index != first) {
        return Err(Answer::not_found());
    }
    let positions: Vec<i64> = places.iter().map(|place| place.position).collect();
    let events = stored_at(&mut *rows, None, ledger.partition(), &positions).await.map_err(|error| failed(&error))?;
    let mut bundle = Vec::new();
    for leaf in events.iter().map(crate::log::stored_event::StoredEvent::encode) {
        if leaf.len() > LARGEST_ENTRY {
            return Err(failed(&"a leaf is larger than an entry of a bundle can be"));
        }
        bundle.extend(u16::try_from(leaf.len()).unwrap_or(u16::MAX).to_be_bytes());
        bundle.extend(leaf);
    }
    Ok(Answer::text(StatusCode::OK, BYTES, bundle))
}

fn checkpoint(signed: &Signed) -> serde_json::Value {
    json!({ "size": signed.size, "rootHash": signed.root.to_string(), "checkpoint": signed.note })
}

/// The part of the path after `tile/`.
#[derive(Debug, PartialEq, Eq)]
enum Path {
    Hashes(SizedTile),
    Entries { index: u64, width: usize },
}

/// `0/x001/x234/067`, `1/005.p/7`, `entries/000`: a single notation for each.
fn parse(path: &str) -> Option<Path> {
    let (level, rest) = path.split_once('/')?;
    let (number, width) = match rest.split_once(".p/") {
        None => (rest, TILE_WIDTH),
        Some((number, width)) => {
            (number, plain(width).filter(|width| (1..TILE_WIDTH as u64).contains(width))?.try_into().ok()?)
        }
    };
    let mut parts = number.split('/').rev();
    let mut index = three(parts.next()?)?;
    let (mut factor, mut leading) = (1_u64, index);
    let mut more = false;
    for part in parts {
        factor = factor.checked_mul(1_000)?;
        leading = three(part.strip_prefix('x')?)?;
        index = index.checked_add(leading.checked_mul(factor)?)?;
        more = true;
    }
    // `x000/001` is `001`.
    if more && leading == 0 {
        return None;
    }
    if level == "entries" {
        return Some(Path::Entries { index, width });
    }
    let level = u8::try_from(plain(level)?).ok().filter(|level| *level < 8)?;
    Some(Path::Hashes(SizedTile { id: TileId { level, index }, width }))
}

fn three(digits: &str) -> Option<u64> {
    (digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// A number without leading zeros or sign.
fn plain(digits: &str) -> Option<u64> {
    let number: u64 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

fn number(query: &str, name: &str) -> Result<Option<u64>, Answer> {
    let value = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value);
    value.map(|value| value.parse().map_err(|_| bad(&format!("`{name}` must be a whole number.")))).transpose()
}

fn bad(sentence: &str) -> Answer {
    error(StatusCode::BAD_REQUEST, "bad_request", sentence)
}

fn refused(told: LedgerError) -> Answer {
    match told {
        LedgerError::Proof(ProofError::NotLater { .. }) => bad(&told.to_string()),
        LedgerError::NoEvent | LedgerError::NoCheckpoint(_) => Answer::not_found(),
        LedgerError::NotYet => error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", told.to_string()).retry_after(1),
        LedgerError::Store(_) | LedgerError::Checkpoint(_) | LedgerError::Proof(_) => failed(&told),
    }
}

fn failed(reason: &dyn std::fmt::Display) -> Answer {
    tracing::error!(error = %reason, "the ledger could not be read");
    error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The ledger isn't available right now. Try again.")
        .retry_after(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_is_written_in_one_way() {
        let hashes = |level, index, width| Some(Path::Hashes(SizedTile { id: TileId { level, index }, width }));
        assert_eq!(parse("0/000"), hashes(0, 0, 256));
        assert_eq!(parse("1/x001/x234/067"), hashes(1, 1_234_067, 256));
        assert_eq!(parse("7/005.p/7"), hashes(7, 5, 7));
        assert_eq!(parse("entries/x001/000.p/255"), Some(Path::Entries { index: 1_000, width: 255 }));
        for bad in [
            "",
            "0",
            "0/",
            "0/0",
            "0/0000",
            "8/000",
            "00/000",
            "+1/000",
            "-1/000",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/01",
            "0/x000/001",
            "0/001/002",
            "0/x01/002",
            "0/x001/",
            "0/000.p",
            "0/000.p/1/2",
            "data/000",
            "200/000",
            "0/x999/x999/x999/x999/x999/x999/x999/999",
            "entries/abc",
            "0/ 00",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
