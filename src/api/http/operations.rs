//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hookledger_projections::Interest;
use http::StatusCode;
use serde::Serialize;
use warp::reply::Response;
use warp::{Filter, Reply as _};

use super::{Answer, Services, with};
use crate::audit::conservation;
use crate::log::follow::Lag;

/// How many seconds an event may wait for a follower while the node counts as ready. Under load, followers
/// step back for about 10 s.
const READY_AGE: f64 = 30.0;
/// How long the store may take to answer.
const STORE_LIMIT: Duration = Duration::from_secs(2);

/// How long an answer of the store is reused for all clients, who may be strangers.
const FRESH: Duration = Duration::from_millis(500);

/// The node's readiness, as far as the store is concerned. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<tokio::sync::Mutex<Option<(Instant, Found)>>>);

/// The store's state: why the node is not ready, and what needs attention.
#[derive(Clone, Debug)]
struct Found {
    reasons: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
    /// Problems that need attention although requests are served.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl Health {
    fn new(reasons: Vec<String>, warnings: Vec<String>) -> Self {
        Self { status: if reasons.is_empty() { "ok" } else { "unavailable" }, reasons, warnings }
    }

    /// Without details that strangers should not see.
    fn bare(self) -> Self {
        Self { reasons: vec![], warnings: vec![], ..self }
    }

    fn answer(&self) -> Response {
        let status = if self.status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        Answer::json(status, self).into_response()
    }
}

/// For everybody: whether the node is alive and ready, and the rest only if nobody else can ask.
pub(super) fn route(services: Arc<Services>) -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    paths(services, |services| services.operations_are_public)
}

/// For operators: everything.
pub(super) fn private_route(
    services: Arc<Services>,
) -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    paths(services, |_| true)
}

fn paths(
    services: Arc<Services>,
    shows_all: fn(&Services) -> bool,
) -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    let alive =
        warp::path!("healthz").and(warp::get()).and(with(Arc::clone(&services))).map(move |services: Arc<Services>| {
            // Only problems that a restart would fix.
            let vitals = &services.vitals;
            let health = Health::new(if vitals.is_past_help() { vitals.reasons() } else { vec![] }, vec![]);
            if shows_all(&services) { health } else { health.bare() }.answer()
        });
    let ready = warp::path!("readyz").and(warp::get()).and(with(Arc::clone(&services))).then(
        move |services: Arc<Services>| async move {
            let health = readiness(&services).await;
            if shows_all(&services) { health } else { health.bare() }.answer()
        },
    );
    let metrics = warp::path!("metrics").and(warp::get()).and(with(services)).map(move |services: Arc<Services>| {
        if !shows_all(&services) {
            return Answer::not_found().into_response();
        }
        let text = services.metrics.render();
        Answer::text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text).into_response()
    });
    alive.or(ready).unify().or(metrics).unify()
}

/// Lag of the followers of all events, and of administrative ones. The follower of pending webhooks is
/// monitored by the queue's own signs.
async fn lag(services: &Services) -> Result<Vec<Lag>, sqlx::Error> {
    let projections = hookledger_projections::all();
    let of = |interest: Interest| {
        let wanted = projections.iter().filter(move |projection| projection.interest() == interest);
        wanted.map(|projection| projection.name())
    };
    let all: Vec<&str> = of(Interest::All).chain([crate::audit::FOLLOWER]).collect();
    services.checkpoints.lag(&all, &of(Interest::Administrative).collect::<Vec<_>>()).await
}

async fn readiness(services: &Services) -> Health {
    let Found { mut reasons, mut warnings } = asked(services).await;
    reasons.extend(services.vitals.reasons());
    warnings.extend(services.vitals.warnings());
    Health::new(reasons, warnings)
}

/// The store's state, queried once for all concurrent requests.
async fn asked(services: &Services) -> Found {
    let mut last = services.readiness.0.lock().await;
    if let Some((at, found)) = last.as_ref()
        && at.elapsed() < FRESH
    {
        return found.clone();
    }
    let reasons = reasons(services).await;
    let warnings = if reasons.is_empty() { warnings(services).await } else { vec![] };
    let found = Found { reasons, warnings };
    *last = Some((Instant::now(), found.clone()));
    found
}

async fn reasons(services: &Services) -> Vec<String> {
    match tokio::time::timeout(STORE_LIMIT, lag(services)).await {
        Err(_) => vec!["the store does not answer in time".to_owned()],
        Ok(Err(error)) => {
            tracing::error!(%error, "the store does not answer");
            vec!["the store does not answer".to_owned()]
        }
        Ok(Ok(lags)) => {
            for lag in &lags {
                #[expect(clippy::cast_precision_loss, reason = "for a graph")]
                metrics::gauge!("hookledger_follower_lag_events", "follower" => lag.name.clone())
                    .set(lag.events as f64);
                metrics::gauge!("hookledger_follower_lag_seconds", "follower" => lag.name.clone())
                    .set(lag.age.unwrap_or_default().max(0.0));
            }
            lags.into_iter()
                // Only readers of the mirror wait for it, not this node's clients.
                .filter(|lag| lag.name != crate::log::relay::NAME)
                .filter(|lag| lag.stopped_by.is_some() || lag.age.is_some_and(|age| age > READY_AGE))
                .map(|lag| match lag.stopped_by {
                    Some(_) => format!("{} stopped at an event that it cannot apply; see the server's log", lag.name),
                    None => {
                        format!("{} is {} events and {:.0} s behind", lag.name, lag.events, lag.age.unwrap_or_default())
                    }
                })
                .collect()
        }
    }
}

/// Differences between log and read models; see [`crate::audit::conservation`].
async fn warnings(services: &Services) -> Vec<String> {
    let count = async {
        let mut everybody = services.app.tenants.everybody().await?;
        conservation::mismatches(&mut *everybody).await
    };
    match tokio::time::timeout(STORE_LIMIT, count).await {
        Ok(Ok(0)) | Err(_) => vec![],
        Ok(Ok(count)) => vec![format!("the read models of {count} organizations do not say what the log says")],
        Ok(Err(error)) => {
            tracing::error!(%error, "conservation cannot be read");
            vec![]
        }
    }
}
