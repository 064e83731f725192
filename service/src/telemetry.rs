//! Logs and metrics.

use std::io::IsTerminal as _;
use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};
use tracing_subscriber::EnvFilter;

use crate::config::StrategyName;

/// Sends logs to standard error; `RUST_LOG` chooses what, `info` unless it is set.
pub fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        // Where a log cannot be written, that is no reason to stop selling.
        .log_internal_errors(false)
        .init();
}

/// The metrics of one replica. Clones count into the same registry.
#[derive(Clone)]
pub struct Metrics {
    /// What the lock counts.
    pub lock: LockMetrics,
    /// What the checkout counts.
    pub checkout: CheckoutMetrics,
    /// What the HTTP server counts.
    pub http: HttpMetrics,
    registry: Arc<Registry>,
}

/// What a lock counts.
#[derive(Clone, Debug)]
pub struct LockMetrics {
    /// Seconds from asking for a lease to its acquisition.
    pub wait_seconds: Histogram,
    /// Seconds from the acquisition of a lease to its release.
    pub hold_seconds: Histogram,
    /// Leases that were acquired.
    pub holds: Counter,
    /// Leases that were over before they were released.
    pub lost_leases: Counter,
    /// Deadlines that passed while the lock was waited for.
    pub timeouts: Counter,
    /// Failures of the backend.
    pub errors: Counter,
    /// Announcements by ZooKeeper or etcd that something has changed.
    pub watch_notifications: Counter,
    /// Listings of a lock's queue in ZooKeeper or etcd.
    pub listings: Counter,
    /// Round trips to the lock's backend; requests that were sent together count once.
    pub round_trips: Counter,
    /// Extensions of a lease by its holder (of ZooKeeper's session, by its heartbeats).
    pub renewals: Counter,
}

/// What the checkout counts.
#[derive(Clone, Debug)]
pub struct CheckoutMetrics {
    /// Requests in one transaction.
    pub batch_size: Histogram,
    /// Batches that were committed.
    pub commits: Counter,
    /// Writes that the guard refused, because what was read had changed or the lease was lost.
    pub stale_writes_rejected: Counter,
    /// Requests whose client had gone, or whose time was over, before their batch began.
    pub abandoned: Counter,
    /// Products that have been ordered lately, each with its queue.
    pub queues: Gauge,
}

/// What the HTTP server counts.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    /// Answers, by method, route and status.
    pub requests: Family<RequestLabels, Counter>,
    /// Seconds from a request's head to its answer's.
    pub request_seconds: Histogram,
}

/// What an answer was to.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    /// The HTTP method, or `other`.
    pub method: &'static str,
    /// The route as declared, so that it is bounded.
    pub route: String,
    /// The HTTP status of the answer.
    pub status: u16,
}

/// From 10 µs to about 60 s, each 1.3 times the one before.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_01, 1.3, 60))
}

impl Metrics {
    /// Metrics of a replica under a strategy, by which each of them is labelled.
    pub fn new(strategy: StrategyName) -> Self {
        let lock = LockMetrics {
            wait_seconds: seconds(),
            hold_seconds: seconds(),
            holds: Counter::default(),
            lost_leases: Counter::default(),
            timeouts: Counter::default(),
            errors: Counter::default(),
            watch_notifications: Counter::default(),
            listings: Counter::default(),
            round_trips: Counter::default(),
            renewals: Counter::default(),
        };
        let checkout = CheckoutMetrics {
            batch_size: Histogram::new(exponential_buckets(1.0, 2.0, 15)),
            commits: Counter::default(),
            stale_writes_rejected: Counter::default(),
            abandoned: Counter::default(),
            queues: Gauge::default(),
        };
        let http = HttpMetrics { requests: Family::default(), request_seconds: seconds() };
        let mut registry = Registry::with_prefix_and_labels(
            "stocklock",
            [("strategy".into(), strategy.as_str().into())].into_iter(),
        );
        let mut add = Registrar(&mut registry);
        add.metric("lock_wait_seconds", "From asking for a lease to its acquisition", &lock.wait_seconds);
        add.metric("lock_hold_seconds", "From the acquisition of a lease to its release", &lock.hold_seconds);
        add.metric("lock_holds", "Leases acquired", &lock.holds);
        add.metric("lock_lost_leases", "Leases that were over before their release", &lock.lost_leases);
        add.metric("lock_timeouts", "Deadlines that passed while waiting for the lock", &lock.timeouts);
        add.metric("lock_errors", "Failures of the lock's backend", &lock.errors);
        let notifications = &lock.watch_notifications;
        add.metric(
            "lock_watch_notifications",
            "Announcements of a change by ZooKeeper or etcd",
            notifications,
        );
        add.metric("lock_listings", "Listings of a lock's queue in ZooKeeper or etcd", &lock.listings);
        add.metric("lock_round_trips", "Round trips to the lock's backend", &lock.round_trips);
        add.metric("lock_renewals", "Extensions of leases by their holders", &lock.renewals);
        add.metric("checkout_batch_size", "Requests in one transaction", &checkout.batch_size);
        add.metric("checkout_commits", "Batches that were committed", &checkout.commits);
        let stale = &checkout.stale_writes_rejected;
        add.metric("checkout_stale_writes_rejected", "Writes that the guard refused", stale);
        let abandoned = &checkout.abandoned;
        add.metric("checkout_abandoned", "Requests given up before their batch began", abandoned);
        add.metric("checkout_queues", "Products that have been ordered lately", &checkout.queues);
        add.metric("http_requests", "Answers", &http.requests);
        add.metric("http_request_seconds", "From a request's head to its answer's", &http.request_seconds);
        Self { lock, checkout, http, registry: Arc::new(registry) }
    }

    /// The metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

struct Registrar<'a>(&'a mut Registry);

impl Registrar<'_> {
    fn metric(&mut self, name: &str, help: &str, metric: &(impl Metric + Clone)) {
        self.0.register(name, help, metric.clone());
    }
}
