//! What operators and balancers ask: `/livez`, `/readyz`, `/metrics`, `/v1/info`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::IntoResponse;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::docs::RateProblems;
use super::problem::Failure;
use crate::api::{Health, Info, Problem};
use crate::change::ChangeError;
use crate::telemetry::Exposition;

pub(super) fn routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new().routes(routes!(livez)).routes(routes!(readyz))
}

pub(super) fn metrics_routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new().routes(routes!(metrics))
}

pub(super) fn info_routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new().routes(routes!(info))
}

/// Whether the process lives.
#[utoipa::path(
    get, path = "/livez", operation_id = "getLivez", tag = "operation",
    responses((status = 200, body = Health, description = "It lives")),
)]
async fn livez() -> Json<Health> {
    Json(Health { status: "ok".into() })
}

/// Whether an order could be taken now: a write is committed, and a lock taken and given back, within a
/// second.
#[utoipa::path(
    get, path = "/readyz", operation_id = "getReadyz", tag = "operation",
    responses(
        (status = 200, body = Health, description = "Orders can be taken"),
        (status = 503, body = Problem, content_type = "application/problem+json",
            description = "`dependency-down`, which names the dependency, or `shutting-down`"),
    ),
)]
async fn readyz(State(shared): State<Arc<AppState>>) -> Result<Json<Health>, Failure> {
    let ready = can_take_orders(&shared).await;
    shared.metrics.operation.ready.set(ready.is_ok().into());
    ready.map(|()| Json(Health { status: "ok".into() }))
}

async fn can_take_orders(shared: &AppState) -> Result<(), Failure> {
    if shared.stopping.is_cancelled() {
        return Err(ChangeError::ShuttingDown.into());
    }
    shared.readiness.check().await.map_err(|why| Failure::unavailable(why.to_string()))
}

/// Show the metrics, for Prometheus; at `admin.listen` where that is configured.
///
/// In its text format 0.0.4, or in OpenMetrics where `Accept` names it.
#[utoipa::path(
    get, path = "/metrics", operation_id = "getMetrics", tag = "operation",
    responses(
        (status = 200, description = "The metrics", content(
            (String = "text/plain"),
            (String = "application/openmetrics-text"),
        )),
    ),
)]
async fn metrics(State(shared): State<Arc<AppState>>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let format = Exposition::accepted(accept.unwrap_or_default());
    shared.checkout.measure(&shared.metrics.checkout);
    ([(CONTENT_TYPE, format.content_type())], shared.metrics.encode(format))
}

/// Say what this replica is.
#[utoipa::path(
    get, path = "/v1/info", operation_id = "getInfo", tag = "operation",
    responses((status = 200, body = Info, description = "What this replica is"), RateProblems),
)]
async fn info(State(shared): State<Arc<AppState>>) -> Json<Info> {
    // A lease is what the backend grants, and may be another after it was away.
    let lease = shared.lock.lease().map(|lease| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX));
    Json(Info { lease_ms: lease, ..shared.info.clone() })
}
