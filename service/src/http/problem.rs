//! Errors as RFC 9457 problem documents.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tower_http::request_id::RequestId;

use crate::api::{FieldError, OrderOutcome, Problem};
use crate::change::ChangeError;
use crate::lock::LockError;
use crate::store::StoreError;

/// The media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// An answer that is an error.
#[derive(Debug, Clone)]
pub struct Failure {
    problem: Box<Problem>,
    headers: HeaderMap,
}

impl Failure {
    /// A problem of the kind `slug`.
    pub fn new(status: StatusCode, slug: &str, title: &str, detail: impl Into<String>) -> Self {
        let problem = Problem {
            kind: format!("/problems/{slug}"),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            request_id: String::new(),
            outcome: None,
            requested: None,
            available: None,
            version: None,
            order_status: None,
            errors: Vec::new(),
        };
        Self { problem: Box::new(problem), headers: HeaderMap::new() }
    }

    /// A request that cannot be read.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "The request cannot be read", detail)
    }

    /// A request that can be read, with fields that are wrong.
    pub fn validation(errors: Vec<FieldError>) -> Self {
        let all: Vec<_> = errors.iter().map(|error| format!("{} {}", error.field, error.detail)).collect();
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let mut failure =
            Self::new(status, "validation", "The request has fields that are wrong", all.join("; "));
        failure.problem.errors = errors;
        failure
    }

    /// One field that is wrong.
    pub fn field(field: &str, detail: impl Into<String>) -> Self {
        Self::validation(vec![FieldError { field: field.into(), detail: detail.into() }])
    }

    /// The credentials are missing or wrong: the token of this key.
    pub fn unauthorized(token: &str) -> Self {
        let title = "The bearer token is missing or wrong";
        let detail = format!("send the header Authorization: Bearer <{token}>");
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", title, detail)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// The client sends too much; it may come again after `wait`.
    pub fn rate_limited(wait: Duration) -> Self {
        let title = "There are too many requests from this address";
        let detail = "this replica takes so many per second from one address: server.rate_limit";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", title, detail).retry_after(wait)
    }

    /// There is no such product.
    pub fn no_such_product(sku: &str) -> Self {
        let detail = format!("there is no product {sku}");
        Self::new(StatusCode::NOT_FOUND, "no-such-product", "There is no such product", detail)
    }

    fn with_header(mut self, name: axum::http::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    fn retry_after_a_second(self) -> Self {
        self.retry_after(Duration::from_secs(1))
    }

    /// In whole seconds, at least one.
    fn retry_after(self, time: Duration) -> Self {
        let seconds = time.as_secs_f64().ceil().max(1.0) as u64;
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Says of a change of stock whether it may have been made.
    pub fn with_outcome(mut self, outcome: OrderOutcome) -> Self {
        self.problem.outcome = Some(outcome);
        self
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        let detail = error.to_string();
        let new = |status, slug, title| Self::new(status, slug, title, detail.clone());
        let conflict = StatusCode::CONFLICT;
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        let mut failure = match &error {
            ChangeError::NoSuchProduct(sku) => Self::no_such_product(sku.as_str()),
            ChangeError::NoSuchOrder(_) => {
                new(StatusCode::NOT_FOUND, "no-such-order", "There is no such order")
            }
            ChangeError::NotCancellable(..) => {
                new(conflict, "not-cancellable", "The order cannot be cancelled")
            }
            ChangeError::NotPayable(..) => new(conflict, "not-payable", "The order cannot be paid"),
            ChangeError::OrderChanged(_) => {
                new(conflict, "order-changed", "The order was changed at the same moment")
                    .retry_after_a_second()
            }
            ChangeError::InsufficientStock { .. } => {
                new(conflict, "insufficient-stock", "There is not enough stock")
            }
            ChangeError::KeyReused => new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The idempotency key belongs to another request",
            ),
            ChangeError::KeyInFlight => {
                new(conflict, "idempotency-in-flight", "The idempotency key is in use").retry_after_a_second()
            }
            ChangeError::LockTimeout => {
                new(unavailable, "lock-timeout", "The lock was not free in time").retry_after_a_second()
            }
            ChangeError::Overloaded { retry_after, .. } => {
                new(unavailable, "overloaded", "There is too much to do").retry_after(*retry_after)
            }
            ChangeError::DependencyDown(_) => {
                new(unavailable, "dependency-down", "A dependency is not available").retry_after_a_second()
            }
            ChangeError::ShuttingDown => {
                new(unavailable, "shutting-down", "This replica is stopping").retry_after_a_second()
            }
            ChangeError::ResetNotAllowed => {
                new(StatusCode::FORBIDDEN, "reset-not-allowed", "The product exists and may not be reset")
            }
            ChangeError::TooManyOrders => {
                new(conflict, "too-many-orders", "The product has too many orders to be reset")
            }
            ChangeError::OutcomeUnknown => {
                new(StatusCode::GATEWAY_TIMEOUT, "outcome-unknown", "It is not known what was written")
            }
        };
        if let ChangeError::InsufficientStock { requested, available, version } = error {
            failure.problem.requested = Some(requested);
            failure.problem.available = Some(available);
            failure.problem.version = Some(version);
        }
        if let ChangeError::NotCancellable(_, status) | ChangeError::NotPayable(_, status) = error {
            failure.problem.order_status = Some(status);
        }
        let unknown = matches!(error, ChangeError::OutcomeUnknown);
        failure.with_outcome(if unknown { OrderOutcome::Unknown } else { OrderOutcome::NotExecuted })
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        ChangeError::from(error).into()
    }
}

impl Failure {
    /// A dependency is not available.
    pub fn unavailable(detail: String) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "dependency-down", "A dependency is not available", detail).retry_after_a_second()
    }
}

/// The document is written by [`finish`], which knows the request's identity.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).expect("problems are made from statuses");
        let mut response = (status, self.headers.clone()).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Whether a request with this method changes something.
pub fn is_change(method: &str) -> bool {
    matches!(method, "POST" | "PUT" | "PATCH" | "DELETE")
}

/// Writes the document of every answer that is an error, also of those that no handler made. Returns what it
/// says, too.
pub fn finish(
    mut response: Response,
    method: &str,
    id: Option<&RequestId>,
) -> (Response, Option<Box<Problem>>) {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return (response, None);
    }
    let failure = response.extensions_mut().remove::<Failure>();
    let mut problem = failure.unwrap_or_else(|| unexpected(status)).problem;
    if is_change(method) && problem.outcome.is_none() {
        let refused = status.is_client_error();
        problem.outcome = Some(if refused { OrderOutcome::NotExecuted } else { OrderOutcome::Unknown });
    }
    let id = id.and_then(|id| id.header_value().to_str().ok());
    problem.request_id = id.unwrap_or_default().to_owned();
    let body = serde_json::to_vec(&problem).expect("a problem can be written as JSON");
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    (Response::from_parts(parts, Body::from(body)), Some(problem))
}

/// An error that comes from a layer: a panic, most likely.
fn unexpected(status: StatusCode) -> Failure {
    let title = status.canonical_reason().unwrap_or("Error");
    let slug = title.to_lowercase().replace(' ', "-");
    Failure::new(status, &slug, title, "the request was not answered by its handler")
}

/// For paths that lead nowhere.
pub async fn no_such_route(request: Request) -> Failure {
    let detail = format!("there is nothing at {}; see /docs", request.uri().path());
    Failure::new(StatusCode::NOT_FOUND, "no-such-route", "There is no such route", detail)
}

/// For paths that do not know the method. The header `Allow` is the router's.
pub async fn method_not_allowed(request: Request) -> Failure {
    let detail =
        format!("{} does not know {}; see the header {ALLOW}", request.uri().path(), request.method());
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Failure::new(status, "method-not-allowed", "The method is not allowed", detail)
}
