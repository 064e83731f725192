//! HTTP: the router and what all resources share.

mod access;
mod access_log;
mod admin;
mod docs;
mod extract;
mod health;
mod orders;
mod page;
mod problem;
mod products;
mod rate_limit;
mod security;
pub mod server;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Version, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use self::access_log::{Answered, RequestHead};
use crate::api::{self, Info};
use crate::checkout::Checkout;
use crate::lock::Lock;
use crate::readiness::Readiness;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::telemetry::tracer::Tracer;

pub use access::Access;
pub use access_log::AccessLog;
pub use docs::openapi_yaml;
pub use rate_limit::RateLimit;
use rate_limit::Throttled;

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
    /// Whether an order could be taken.
    pub readiness: Readiness,
    /// Who may change products, and list and cancel orders.
    pub access: Access,
    /// Places for reads under a shared lock.
    pub locked_reads: Semaphore,
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

/// Which of the routes are at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// All of them.
    Only,
    /// All but those that the admin's address has.
    Public,
    /// `/v1/admin`, the metrics and the health.
    Admin,
}

/// The router of a replica: the routes of a listener, with what happens around each request.
pub fn router(shared: Arc<AppState>, listener: Listener) -> Router {
    let at = match listener {
        Listener::Only => routes(),
        Listener::Public => public_routes(),
        Listener::Admin => admin_routes(),
    };
    let documents = match listener {
        Listener::Admin => Router::new(),
        // All routes are described, wherever they are.
        Listener::Only | Listener::Public => docs::routes(routes().into_openapi()),
    };
    Router::from(at)
        .with_state(Arc::clone(&shared))
        .merge(documents)
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
        .merge(sales_routes())
        .merge(operation_routes())
        .merge(health::routes())
}

fn public_routes() -> OpenApiRouter<Arc<AppState>> {
    sales_routes().merge(health::routes())
}

fn admin_routes() -> OpenApiRouter<Arc<AppState>> {
    operation_routes().merge(health::routes())
}

fn sales_routes() -> OpenApiRouter<Arc<AppState>> {
    orders::routes().merge(products::routes()).merge(health::info_routes())
}

fn operation_routes() -> OpenApiRouter<Arc<AppState>> {
    admin::routes().merge(health::metrics_routes())
}

/// Says so of what was made before.
fn replayed(is_replayed: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if is_replayed {
        headers.insert(api::IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    headers
}

/// Counts, times and logs every request, and sees to it that every error is a problem document, and that
/// browsers take every answer for what it is.
async fn observe(State(shared): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = known(request.method());
    let head = RequestHead::of(method, &request);
    let is_page = security::is_page(head.path());
    let trace = shared.tracer.as_ref().and_then(|tracer| trace::begin(tracer, &head));
    let response = match (refusal(&request), &trace) {
        (Some(refusal), _) => refusal.into_response(),
        (None, Some(trace)) => trace.within(bounded(&shared, method, request, next)).await,
        (None, None) => bounded(&shared, method, request, next).await,
    };
    let (mut response, problem) = problem::finish(response, method, head.id.as_ref());
    security::protect(response.headers_mut(), is_page);
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

/// Why a request is not even looked at.
fn refusal(request: &Request) -> Option<problem::Failure> {
    if let Some(Throttled(wait)) = request.extensions().get() {
        return Some(problem::Failure::rate_limited(*wait));
    }
    // RFC 9112, 3.2: two servers may take two hosts for two different ones.
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let is_right = hosts == 1 || (hosts == 0 && request.version() < Version::HTTP_11);
    (!is_right).then(|| problem::Failure::malformed("there must be one header Host"))
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
