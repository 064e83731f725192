//! Traces of requests: spans with a beginning and an end, handed over to be [exported](super::otlp).
//!
//! A request that is traced has an [`ActiveSpan`], which is found by [`current`] in its task. Where nothing
//! is traced, that is a look at an empty place.

use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::trace::{SpanId, TraceId, TraceParent};

tokio::task_local! {
    static CURRENT: Arc<ActiveSpan>;
}

/// The request that is traced in this task.
pub fn current() -> Option<Arc<ActiveSpan>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Decides what is traced, and takes spans. Never waits: spans are dropped, and counted, when there is no
/// place for more.
#[derive(Debug)]
pub struct Tracer {
    sample_ratio: f64,
    spans: mpsc::Sender<Span>,
    dropped: Counter,
    /// The same moment by both clocks.
    epoch: (Instant, u64),
}

/// A part of a trace that has ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Span {
    pub(super) trace: TraceId,
    pub(super) id: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) name: String,
    /// Whether it is that of a request, else it is within one.
    pub(super) is_request: bool,
    /// Nanoseconds since the Unix epoch.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) attributes: Vec<(&'static str, Attribute)>,
    pub(super) failed: bool,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

/// The span of a request that is being answered.
#[derive(Debug)]
pub struct ActiveSpan {
    tracer: Arc<Tracer>,
    trace: TraceId,
    id: SpanId,
    parent: Option<SpanId>,
    start: Instant,
}

impl Tracer {
    /// A tracer whose spans go to `spans`, and those for which there is no place into `dropped`.
    pub(super) fn new(sample_ratio: f64, spans: mpsc::Sender<Span>, dropped: Counter) -> Self {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let epoch = (Instant::now(), u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX));
        Self { sample_ratio, spans, dropped, epoch }
    }

    /// Begins the span of a request, if it is to be traced: as its sender has decided, or else by the ratio.
    pub fn begin(self: &Arc<Self>, parent: Option<TraceParent>) -> Option<Arc<ActiveSpan>> {
        let is_sampled = match parent {
            Some(parent) => parent.is_sampled,
            None => rand::random::<f64>() < self.sample_ratio,
        };
        is_sampled.then(|| {
            Arc::new(ActiveSpan {
                tracer: Arc::clone(self),
                trace: parent.map_or_else(|| TraceId(rand::random::<u128>() | 1), |parent| parent.trace),
                id: new_span_id(),
                parent: parent.map(|parent| parent.span),
                start: Instant::now(),
            })
        })
    }

    fn nanoseconds(&self, at: Instant) -> u64 {
        let (instant, unix) = self.epoch;
        let nanoseconds = |duration: std::time::Duration| duration.as_nanos() as u64;
        match at.checked_duration_since(instant) {
            Some(after) => unix.saturating_add(nanoseconds(after)),
            None => unix.saturating_sub(nanoseconds(instant.duration_since(at))),
        }
    }

    fn hand_over(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.dropped.inc();
        }
    }
}

fn new_span_id() -> SpanId {
    SpanId(rand::random::<u64>() | 1)
}

impl ActiveSpan {
    /// The trace that it belongs to.
    pub fn trace(&self) -> TraceId {
        self.trace
    }

    /// Completes `work`, in which this is the [`current`] one.
    pub async fn within<T>(self: &Arc<Self>, work: impl Future<Output = T>) -> T {
        CURRENT.scope(Arc::clone(self), work).await
    }

    /// Adds a span within this one, also after this one's end.
    pub fn child(
        &self,
        name: &str,
        (start, end): (Instant, Instant),
        attributes: Vec<(&'static str, Attribute)>,
    ) {
        self.tracer.hand_over(Span {
            trace: self.trace,
            id: new_span_id(),
            parent: Some(self.id),
            name: name.to_owned(),
            is_request: false,
            start: self.tracer.nanoseconds(start),
            end: self.tracer.nanoseconds(end),
            attributes,
            failed: false,
        });
    }

    /// Ends it now.
    pub fn end(&self, name: String, attributes: Vec<(&'static str, Attribute)>, failed: bool) {
        self.tracer.hand_over(Span {
            trace: self.trace,
            id: self.id,
            parent: self.parent,
            name,
            is_request: true,
            start: self.tracer.nanoseconds(self.start),
            end: self.tracer.nanoseconds(Instant::now()),
            attributes,
            failed,
        });
    }
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<usize> for Attribute {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u16> for Attribute {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(sample_ratio: f64, places: usize) -> (Arc<Tracer>, mpsc::Receiver<Span>) {
        let (spans, taken) = mpsc::channel(places);
        (Arc::new(Tracer::new(sample_ratio, spans, Counter::default())), taken)
    }

    #[test]
    fn what_the_sender_has_decided_comes_before_the_ratio() {
        let parent = |is_sampled| TraceParent { trace: TraceId(7), span: SpanId(8), is_sampled };
        let (never, _taken) = tracer(0.0, 1);
        assert!(never.begin(None).is_none());
        let begun = never.begin(Some(parent(true))).expect("it is sampled");
        assert_eq!((begun.trace, begun.parent), (TraceId(7), Some(SpanId(8))));
        let (always, _taken) = tracer(1.0, 1);
        assert!(always.begin(Some(parent(false))).is_none());
        assert_eq!(always.begin(None).expect("all are").parent, None);
    }

    #[tokio::test(start_paused = true)]
    async fn spans_for_which_there_is_no_place_are_dropped_and_counted() {
        let (tracer, mut taken) = tracer(1.0, 2);
        let request = tracer.begin(None).expect("all are");
        let start = Instant::now();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        for _ in 0..5 {
            request.child("commit", (start, Instant::now()), Vec::new());
        }
        assert_eq!(tracer.dropped.get(), 3);
        let span = taken.try_recv().expect("a span");
        assert_eq!((span.parent, span.end - span.start), (Some(request.id), 1_000_000_000));
    }

    #[tokio::test]
    async fn the_current_request_is_that_of_the_task() {
        let (tracer, _taken) = tracer(1.0, 2);
        assert!(current().is_none());
        let request = tracer.begin(None).expect("all are");
        let found = request.within(async { current().expect("it is traced").id }).await;
        assert_eq!(found, request.id);
        assert!(current().is_none());
    }
}
