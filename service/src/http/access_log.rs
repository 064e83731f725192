//! The access log: one line for a request, which says all that was asked and answered. Every request has one
//! where `log.access` is on; else those that failed or were slow do, as far as there are not too many.
//!
//! The line is written when the answer is made, so whatever went wrong meanwhile is on it, and requests need
//! no span of their own. Headers and bodies are not on it, nor is a query.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, StatusCode, Uri};
use tower_http::request_id::RequestId;
use tracing::field::display;

use crate::api::Problem;
use crate::config::LogSection;
use crate::telemetry::trace::{TRACEPARENT, TraceId, TraceParent};

/// What the lines are filtered by, in `RUST_LOG`.
const TARGET: &str = "access";

/// The most lines a second, unless every request has one.
const LINES: u32 = 20;

/// The longest request identity on a line, in bytes; a client may send any.
const LONGEST_ID: usize = 128;

/// The longest path on a line and in a span, in bytes; no route is as long.
const LONGEST_PATH: usize = 256;

/// The access log of one replica.
pub struct AccessLog {
    /// Whether every request has a line.
    all: bool,
    slow: Duration,
    quota: Mutex<Quota>,
}

/// What is known of a request before it is answered.
pub struct RequestHead {
    /// The method, or `other`.
    pub method: &'static str,
    /// The route as declared, if there is one.
    pub route: Option<MatchedPath>,
    /// The identity that the answer has, too.
    pub id: Option<RequestId>,
    uri: Uri,
    parent: Option<HeaderValue>,
}

/// What was answered.
pub struct Answered<'a> {
    /// The HTTP status.
    pub status: StatusCode,
    /// From the request's head to the answer's.
    pub took: Duration,
    /// The trace that was made of it, if it was traced.
    pub trace: Option<TraceId>,
    /// The problem, if it is one.
    pub problem: Option<&'a Problem>,
}

impl RequestHead {
    /// Of a request with this method. What it takes of the request is shared, not copied.
    pub fn of(method: &'static str, request: &Request) -> Self {
        Self {
            method,
            route: request.extensions().get::<MatchedPath>().cloned(),
            id: request.extensions().get::<RequestId>().cloned(),
            uri: request.uri().clone(),
            parent: request.headers().get(TRACEPARENT).cloned(),
        }
    }

    /// The path as it was sent, or as much of it as is worth keeping.
    pub fn path(&self) -> &str {
        let path = self.uri.path();
        // It is ASCII, so every place is between two characters.
        &path[..path.len().min(LONGEST_PATH)]
    }

    /// The route as declared, or `none`.
    pub fn route(&self) -> &str {
        self.route.as_ref().map_or("none", MatchedPath::as_str)
    }

    /// The trace that the client says the request belongs to.
    pub fn parent(&self) -> Option<TraceParent> {
        TraceParent::parse(self.parent.as_ref()?.as_bytes())
    }

    fn id(&self) -> Option<&str> {
        let id = self.id.as_ref()?.header_value().to_str().ok()?;
        // It is ASCII, so every place is between two characters.
        Some(&id[..id.len().min(LONGEST_ID)])
    }
}

impl AccessLog {
    /// An access log as configured.
    pub fn new(section: &LogSection) -> Self {
        Self { all: section.access, slow: section.slow, quota: Mutex::new(Quota::new(Instant::now())) }
    }

    /// Writes the line of a request, if it is to have one.
    pub fn note(&self, head: &RequestHead, answered: &Answered<'_>) {
        let failed = answered.status.is_server_error();
        if self.all {
            write(head, answered, failed, None);
        } else if failed || answered.took >= self.slow {
            let mut quota = self.quota.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(left_out) = quota.take(Instant::now()) else { return };
            drop(quota);
            write(head, answered, failed, (left_out > 0).then_some(left_out));
        }
    }
}

fn write(head: &RequestHead, answered: &Answered<'_>, failed: bool, left_out: Option<u64>) {
    let trace_id = answered.trace.or_else(|| Some(head.parent()?.trace)).map(display);
    let status = answered.status.as_u16();
    let duration_ms = answered.took.as_micros() as f64 / 1e3;
    let problem = answered.problem.map(slug);
    // What a client has done wrong is the client's to read; it may quote what was sent.
    let detail = answered.problem.filter(|_| failed).map(|problem| problem.detail.as_str());
    macro_rules! line {
        ($level:expr) => {
            tracing::event!(
                target: TARGET,
                $level,
                request_id = head.id(),
                trace_id,
                method = head.method,
                path = head.path(),
                route = head.route(),
                status,
                duration_ms,
                problem,
                detail,
                left_out,
                "{}", Summary { head, status }
            )
        };
    }
    if failed { line!(tracing::Level::WARN) } else { line!(tracing::Level::INFO) }
}

/// What kind of problem it is.
pub fn slug(problem: &Problem) -> &str {
    problem.kind.trim_start_matches("/problems/")
}

/// What a person reads first.
struct Summary<'a> {
    head: &'a RequestHead,
    status: u16,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.head.method, self.head.path(), self.status)
    }
}

/// So many lines a second.
struct Quota {
    second: Instant,
    lines: u32,
    left_out: u64,
}

impl Quota {
    fn new(now: Instant) -> Self {
        Self { second: now, lines: 0, left_out: 0 }
    }

    /// Takes a line, and how many were left out since the last one; `None` when there are too many.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            (self.second, self.lines) = (now, 0);
        }
        if self.lines == LINES {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_left_out_and_counted_when_there_are_too_many() {
        let begun = Instant::now();
        let mut quota = Quota::new(begun);
        let taken: Vec<_> = (0..LINES + 5).map(|_| quota.take(begun)).collect();
        assert_eq!(taken.iter().filter(|taken| **taken == Some(0)).count(), LINES as usize);
        assert_eq!(taken.iter().filter(|taken| taken.is_none()).count(), 5);
        let later = begun + Duration::from_secs(1);
        assert_eq!(quota.take(later), Some(5));
        assert_eq!(quota.take(later), Some(0));
    }
}
