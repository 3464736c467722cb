//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use hookledger_projections::Interest;
use http::StatusCode;
use serde::Serialize;
use warp::reply::Response;
use warp::{Filter, Reply as _};

use super::{Answer, Services, with};
use crate::conservation;
use crate::follow::Lag;

/// Seconds that an event may wait for a follower while the node counts as ready. Under load, followers
/// step back for about ten.
const READY_AGE: f64 = 30.0;
/// How long the store may take to answer.
const STORE_LIMIT: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
    /// What somebody should look at although requests are served.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

pub(super) fn route(services: Arc<Services>) -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    let alive =
        warp::path!("healthz").and(warp::get()).and(with(Arc::clone(&services))).map(|services: Arc<Services>| {
            // Only what a restart would mend.
            let vitals = &services.vitals;
            health(if vitals.is_past_help() { vitals.reasons() } else { vec![] }, vec![]).into_response()
        });
    let ready = warp::path!("readyz")
        .and(warp::get())
        .and(with(Arc::clone(&services)))
        .then(|services: Arc<Services>| async move { readiness(&services).await.into_response() });
    let metrics = warp::path!("metrics").and(warp::get()).and(with(services)).map(|services: Arc<Services>| {
        let text = services.metrics.render();
        Answer::text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text).into_response()
    });
    alive.or(ready).unify().or(metrics).unify()
}

/// How far those are behind who read every event, or every administrative one. What makes a webhook
/// pending is followed too, and is missed by the queue's own signs.
async fn lag(services: &Services) -> Result<Vec<Lag>, sqlx::Error> {
    let projections = hookledger_projections::all();
    let of = |interest: Interest| {
        let wanted = projections.iter().filter(move |projection| projection.interest() == interest);
        wanted.map(|projection| projection.name())
    };
    let all: Vec<&str> = of(Interest::All).chain([crate::audit::FOLLOWER]).collect();
    services.checkpoints.lag(&all, &of(Interest::Administrative).collect::<Vec<_>>()).await
}

async fn readiness(services: &Services) -> Answer {
    let mut reasons = match tokio::time::timeout(STORE_LIMIT, lag(services)).await {
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
                // Whoever reads the mirror waits for it; nobody who asks this node does.
                .filter(|lag| lag.name != crate::relay::NAME)
                .filter(|lag| lag.stopped_by.is_some() || lag.age.is_some_and(|age| age > READY_AGE))
                .map(|lag| match lag.stopped_by {
                    Some(_) => format!("{} stopped at an event that it cannot apply; see the server's log", lag.name),
                    None => {
                        format!("{} is {} events and {:.0} s behind", lag.name, lag.events, lag.age.unwrap_or_default())
                    }
                })
                .collect()
        }
    };
    reasons.extend(services.vitals.reasons());
    let mut warnings = if reasons.is_empty() { warnings(services).await } else { vec![] };
    warnings.extend(services.vitals.warnings());
    health(reasons, warnings)
}

fn health(reasons: Vec<String>, warnings: Vec<String>) -> Answer {
    if reasons.is_empty() {
        return Answer::json(StatusCode::OK, &Health { status: "ok", reasons, warnings });
    }
    Answer::json(StatusCode::SERVICE_UNAVAILABLE, &Health { status: "unavailable", reasons, warnings })
}

/// Where log and read models do not say the same; see [`crate::conservation`].
async fn warnings(services: &Services) -> Vec<String> {
    let count = async { conservation::mismatches(&mut *services.app.tenants.everybody().await?).await };
    match tokio::time::timeout(STORE_LIMIT, count).await {
        Ok(Ok(0)) | Err(_) => vec![],
        Ok(Ok(count)) => vec![format!("the read models of {count} organizations do not say what the log says")],
        Ok(Err(error)) => {
            tracing::error!(%error, "conservation cannot be read");
            vec![]
        }
    }
}
