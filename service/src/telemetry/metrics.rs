//! What is counted and measured, by one registry for each replica. `service/docs/metrics.md` lists all of it.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

pub use super::exposition::Exposition;
use super::exposition::as_text;
use super::logging::Log;
use super::process::Process;
use crate::config::StrategyName;

/// The metrics of one replica. Clones count into the same registry.
#[derive(Clone)]
pub struct Metrics {
    /// What the lock counts.
    pub lock: LockMetrics,
    /// What the checkout counts.
    pub checkout: CheckoutMetrics,
    /// What became of orders.
    pub orders: OrderMetrics,
    /// What the HTTP server counts.
    pub http: HttpMetrics,
    /// What operators have asked the replica.
    pub operation: OperationMetrics,
    /// What became of spans.
    pub spans: SpanMetrics,
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
    /// Changes that wait, in all queues together; set when metrics are shown.
    pub waiting: Gauge,
    /// Changes that wait in the longest queue; set when metrics are shown.
    pub longest_queue: Gauge,
    /// The most changes that may wait in one queue.
    pub queue_limit: Gauge,
}

/// What became of orders.
#[derive(Clone, Debug)]
pub struct OrderMetrics {
    outcomes: Family<OrderLabels, Counter>,
}

/// What was asked, and what became of it.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OrderLabels {
    action: &'static str,
    outcome: &'static str,
}

/// What is shown from the start, at zero: what an alert or a panel may look at.
const OUTCOMES: [(&str, &str); 15] = [
    ("place", "confirmed"),
    ("place", "awaiting_payment"),
    ("place", "replayed"),
    ("place", "insufficient_stock"),
    ("place", "lock_timeout"),
    ("place", "overloaded"),
    ("place", "dependency_down"),
    ("place", "shutting_down"),
    ("place", "unknown"),
    ("place", "refused"),
    ("place", "withdrawn"),
    ("place", "unanswered"),
    ("pay", "paid"),
    ("cancel", "cancelled"),
    ("expire", "expired"),
];

impl OrderMetrics {
    fn new() -> Self {
        let outcomes = Family::default();
        for (action, outcome) in OUTCOMES {
            drop(outcomes.get_or_create(&OrderLabels { action, outcome }));
        }
        Self { outcomes }
    }

    /// Counts what became of one order.
    pub fn count(&self, action: &'static str, outcome: &'static str) {
        self.outcomes.get_or_create(&OrderLabels { action, outcome }).inc();
    }
}

/// What the HTTP server counts.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    /// Answers, by method, route and status.
    requests: Family<RequestLabels, Counter>,
    /// Seconds from a request's head to its answer's, by method and route.
    seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
}

/// What an answer was to.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

/// What was asked for: the method or `other`, and the route as declared, so that both are bounded.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: String,
}

impl HttpMetrics {
    /// Counts an answer. The method and the route have to be bounded, whatever clients send.
    pub fn answered(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        let labels = RouteLabels { method, route: route.to_owned() };
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
        let RouteLabels { method, route } = labels;
        self.requests.get_or_create(&RequestLabels { method, route, status }).inc();
    }
}

/// What operators have asked the replica.
#[derive(Clone, Debug)]
pub struct OperationMetrics {
    /// Whether the last answer of `/readyz` was that orders can be taken.
    pub ready: Gauge,
    balanced: Counter,
    unbalanced: Counter,
    miscounted: Counter,
}

impl OperationMetrics {
    /// Counts the audit of a product.
    pub fn audited(&self, is_balanced: bool) {
        if is_balanced { &self.balanced } else { &self.unbalanced }.inc();
    }

    /// Counts an audit that found a product's counters to differ from its orders.
    pub fn miscounted(&self) {
        self.miscounted.inc();
    }
}

/// What became of the spans of traced requests.
#[derive(Clone, Debug)]
pub struct SpanMetrics {
    /// The collector has them.
    pub exported: Counter,
    /// There was no place for them, or no collector.
    pub dropped: Counter,
}

/// From 10 µs to 70 s, six to a decade: fine enough for percentiles.
fn lock_seconds() -> Histogram {
    let decades = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1];
    let round = [1.0, 1.5, 2.0, 3.0, 5.0, 7.0];
    Histogram::new(decades.into_iter().flat_map(|decade| round.map(|step| rounded(step * decade))))
}

/// From 0.1 ms to 10 s, three to a decade: there is one for each route.
fn request_seconds() -> Histogram {
    let decades = [1e-4, 1e-3, 1e-2, 1e-1, 1.0];
    let round = [1.0, 2.5, 5.0];
    let steps = decades.into_iter().flat_map(|decade| round.map(|step| rounded(step * decade)));
    Histogram::new(steps.chain([10.0]))
}

/// Without the digits that the multiplication has left: to the microsecond.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

impl Metrics {
    /// Metrics of a replica under a strategy, by which each of them is labelled.
    pub fn new(strategy: StrategyName) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let labels = [("strategy".into(), strategy.as_str().into())];
        let of_service = registry.sub_registry_with_prefix("stocklock");
        of_service.register_collector(Box::new(Log));
        let mut add = Registrar(of_service.sub_registry_with_labels(labels.into_iter()));
        let lock = add.lock();
        let checkout = add.checkout();
        let orders = OrderMetrics::new();
        add.metric("orders", "What became of orders, by what was asked", &orders.outcomes);
        let http = add.http();
        let operation = add.operation();
        let spans = add.spans();
        let commit = option_env!("STOCKLOCK_COMMIT").unwrap_or_default();
        let build = Info::new([("version", env!("CARGO_PKG_VERSION")), ("commit", commit)]);
        add.0.register("build", "What the service is built from", build);
        Self { lock, checkout, orders, http, operation, spans, registry: Arc::new(registry) }
    }

    /// The metrics as text.
    pub fn encode(&self, format: Exposition) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        match format {
            Exposition::OpenMetrics => text,
            Exposition::Text => as_text(&text),
        }
    }
}

struct Registrar<'a>(&'a mut Registry);

impl Registrar<'_> {
    fn lock(&mut self) -> LockMetrics {
        let lock = LockMetrics {
            wait_seconds: lock_seconds(),
            hold_seconds: lock_seconds(),
            holds: Counter::default(),
            lost_leases: Counter::default(),
            timeouts: Counter::default(),
            errors: Counter::default(),
            watch_notifications: Counter::default(),
            listings: Counter::default(),
            round_trips: Counter::default(),
            renewals: Counter::default(),
        };
        self.metric("lock_wait_seconds", "From asking for a lease to its acquisition", &lock.wait_seconds);
        self.metric(
            "lock_hold_seconds",
            "From the acquisition of a lease to its release",
            &lock.hold_seconds,
        );
        self.metric("lock_holds", "Leases acquired", &lock.holds);
        self.metric("lock_lost_leases", "Leases that were over before their release", &lock.lost_leases);
        self.metric("lock_timeouts", "Deadlines that passed while waiting for the lock", &lock.timeouts);
        self.metric("lock_errors", "Failures of the lock's backend", &lock.errors);
        let notifications = &lock.watch_notifications;
        self.metric(
            "lock_watch_notifications",
            "Announcements of a change by ZooKeeper or etcd",
            notifications,
        );
        self.metric("lock_listings", "Listings of a lock's queue in ZooKeeper or etcd", &lock.listings);
        self.metric("lock_round_trips", "Round trips to the lock's backend", &lock.round_trips);
        self.metric("lock_renewals", "Extensions of leases by their holders", &lock.renewals);
        lock
    }

    fn checkout(&mut self) -> CheckoutMetrics {
        let checkout = CheckoutMetrics {
            batch_size: Histogram::new(exponential_buckets(1.0, 2.0, 15)),
            commits: Counter::default(),
            stale_writes_rejected: Counter::default(),
            abandoned: Counter::default(),
            queues: Gauge::default(),
            waiting: Gauge::default(),
            longest_queue: Gauge::default(),
            queue_limit: Gauge::default(),
        };
        self.metric("checkout_batch_size", "Requests in one transaction", &checkout.batch_size);
        self.metric("checkout_commits", "Batches that were committed", &checkout.commits);
        let stale = &checkout.stale_writes_rejected;
        self.metric("checkout_stale_writes_rejected", "Writes that the guard refused", stale);
        let abandoned = &checkout.abandoned;
        self.metric("checkout_abandoned", "Requests given up before their batch began", abandoned);
        self.metric("checkout_queues", "Products that have been ordered lately", &checkout.queues);
        self.metric("checkout_waiting", "Requests that wait, for all products together", &checkout.waiting);
        let longest = &checkout.longest_queue;
        self.metric(
            "checkout_longest_queue",
            "Requests that wait for the product with most of them",
            longest,
        );
        let limit = &checkout.queue_limit;
        self.metric("checkout_queue_limit", "The most requests that may wait for one product", limit);
        checkout
    }

    fn http(&mut self) -> HttpMetrics {
        let seconds = Family::new_with_constructor(request_seconds as fn() -> Histogram);
        let http = HttpMetrics { requests: Family::default(), seconds };
        self.metric("http_requests", "Answers", &http.requests);
        let help = "From a request's head to its answer's";
        self.metric("http_request_duration_seconds", help, &http.seconds);
        http
    }

    fn operation(&mut self) -> OperationMetrics {
        let audits = Family::<[(&str, &str); 1], Counter>::default();
        let of = |result| audits.get_or_create_owned(&[("result", result)]);
        let (balanced, unbalanced) = (of("balanced"), of("unbalanced"));
        let miscounted = Counter::default();
        let operation = OperationMetrics { ready: Gauge::default(), balanced, unbalanced, miscounted };
        self.metric("audits", "Audits of products, by what they found", &audits);
        let miscounts = "Audits that found a product's counters to differ from its orders";
        self.metric("audit_miscounts", miscounts, &operation.miscounted);
        self.metric("ready", "Whether the last answer of /readyz was that it is", &operation.ready);
        operation
    }

    fn spans(&mut self) -> SpanMetrics {
        let spans = Family::<[(&str, &str); 1], Counter>::default();
        let of = |result| spans.get_or_create_owned(&[("result", result)]);
        let metrics = SpanMetrics { exported: of("exported"), dropped: of("dropped") };
        self.metric("spans", "Spans of traced requests, by what became of them", &spans);
        metrics
    }

    fn metric(&mut self, name: &str, help: &str, metric: &(impl Metric + Clone)) {
        self.0.register(name, help, metric.clone());
    }
}
