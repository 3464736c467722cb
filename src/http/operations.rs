//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use warp::reply::Response;
use warp::{Filter, Reply as _};

use super::{Answer, Services, with};
use crate::conservation;

/// Events that a projection may be behind while the node counts as ready.
const READY_LAG: i64 = 100_000;
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

async fn readiness(services: &Services) -> Answer {
    let mut reasons = match tokio::time::timeout(STORE_LIMIT, services.checkpoints.lag()).await {
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
            }
            // What concerns only people is not held up by webhooks that it passes over.
            let behind = |name: &str, events| name == "webhook_logs" && events > READY_LAG;
            lags.into_iter()
                // Whoever reads the mirror waits for it; nobody who asks this node does.
                .filter(|lag| lag.name != crate::relay::NAME)
                .filter(|lag| lag.stopped_by.is_some() || behind(&lag.name, lag.events))
                .map(|lag| match lag.stopped_by {
                    Some(_) => format!("{} stopped at an event that it cannot apply; see the server's log", lag.name),
                    None => format!("{} is {} events behind", lag.name, lag.events),
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
