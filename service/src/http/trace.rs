//! The spans of requests, named as OpenTelemetry's conventions for HTTP have it.

use std::sync::Arc;

use super::access_log::{Answered, RequestHead, slug};
use crate::telemetry::tracer::{ActiveSpan, Attribute, Tracer};

/// Begins the span of a request, if it is to be traced. Health and metrics are asked for too often.
pub(super) fn begin(tracer: &Arc<Tracer>, head: &RequestHead) -> Option<Arc<ActiveSpan>> {
    head.path().starts_with("/v1/").then(|| tracer.begin(head.parent())).flatten()
}

/// Ends it.
pub(super) fn end(span: &ActiveSpan, head: &RequestHead, answered: &Answered<'_>) {
    let mut attributes = vec![
        ("http.request.method", Attribute::from(head.method)),
        ("http.route", Attribute::from(head.route())),
        ("url.path", Attribute::from(head.path())),
        ("http.response.status_code", Attribute::from(answered.status.as_u16())),
    ];
    let failed = answered.status.is_server_error();
    if let Some(problem) = answered.problem {
        attributes.push(("error.type", Attribute::from(slug(problem))));
    }
    span.end(format!("{} {}", head.method, head.route()), attributes, failed);
}
