//! HTTP: the router and what all resources share.

mod access;
mod admin;
mod docs;
mod extract;
mod health;
mod orders;
mod problem;
mod products;
pub mod server;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use self::access::{Answered, RequestHead};
use crate::api::{self, Info};
use crate::checkout::Checkout;
use crate::config::AdminSection;
use crate::lock::Lock;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::telemetry::tracer::Tracer;

pub use access::AccessLog;
pub use docs::openapi_yaml;

/// What the handlers share.
pub struct AppState {
    /// For everything that changes stock.
    pub checkout: Checkout,
    /// For reads, which need no lock.
    pub store: Arc<dyn Store>,
    /// For reads under a shared lock.
    pub lock: Arc<dyn Lock>,
    /// The longest wait for that.
    pub lock_wait: Duration,
    /// The longest time in which a request's body has to arrive, and in which a read is answered.
    pub request_timeout: Duration,
    /// Who may change products.
    pub admin: AdminSection,
    /// What this replica is.
    pub info: Info,
    /// What this replica counts, for `/metrics`.
    pub metrics: Metrics,
    /// Where requests are logged.
    pub access_log: AccessLog,
    /// Who traces requests, where they are traced.
    pub tracer: Option<Arc<Tracer>>,
    /// Whether it is about to stop.
    pub stopping: CancellationToken,
}

/// The router of a replica: all routes, with what happens around each request.
pub fn router(shared: Arc<AppState>) -> Router {
    let (routes, openapi) = routes().split_for_parts();
    routes
        .with_state(Arc::clone(&shared))
        .merge(docs::routes(openapi))
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::method_not_allowed)
        // The outermost first; all in one layer, since the router boxes each.
        .layer((
            SetRequestIdLayer::x_request_id(NewRequestId),
            PropagateRequestIdLayer::x_request_id(),
            from_fn_with_state(shared, observe),
            CatchPanicLayer::new(),
        ))
}

fn routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::with_openapi(docs::description())
        .merge(orders::routes())
        .merge(products::routes())
        .merge(admin::routes())
        .merge(health::routes())
}

/// Says so of what was made before.
fn replayed(is_replayed: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if is_replayed {
        headers.insert(api::IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    headers
}

/// Counts, times and logs every request, and sees to it that every error is a problem document.
async fn observe(State(shared): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = known(request.method());
    let head = RequestHead::of(method, &request);
    let trace = shared.tracer.as_ref().and_then(|tracer| trace::begin(tracer, &head));
    let response = match &trace {
        Some(trace) => trace.within(bounded(&shared, method, request, next)).await,
        None => bounded(&shared, method, request, next).await,
    };
    let (response, problem) = problem::finish(response, method, head.id.as_ref());
    let answered = Answered {
        status: response.status(),
        took: begun.elapsed(),
        trace: trace.as_ref().map(|trace| trace.trace()),
        problem: problem.as_deref(),
    };
    if let Some(trace) = &trace {
        trace::end(trace, &head, &answered);
    }
    shared.metrics.http.answered(method, head.route(), answered.status.as_u16(), answered.took);
    shared.access_log.note(&head, &answered);
    response
}

/// Bounds reads, whatever their dependencies do. A change bounds itself, since it has to say what became of
/// it.
async fn bounded(shared: &AppState, method: &str, request: Request, next: Next) -> Response {
    if problem::is_change(method) {
        return next.run(request).await;
    }
    match tokio::time::timeout(shared.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => problem::Failure::unavailable("a dependency did not answer in time".into()).into_response(),
    }
}

/// The method's name; those that are not known count together, since clients can make up any number of them.
fn known(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"];
    known.into_iter().find(|name| *name == method.as_str()).unwrap_or("other")
}

/// Gives every request that comes without one an identity of its own.
#[derive(Clone, Copy)]
struct NewRequestId;

impl MakeRequestId for NewRequestId {
    fn make_request_id<B>(&mut self, _request: &hyper::Request<B>) -> Option<RequestId> {
        Uuid::now_v7().to_string().parse().ok().map(RequestId::new)
    }
}
