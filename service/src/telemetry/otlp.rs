//! The export of spans to an OpenTelemetry collector: OTLP 1 over HTTP, in JSON, which every receiver of OTLP
//! over HTTP has to take.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::metrics::SpanMetrics;
use super::tracer::{Attribute, Span, Tracer};
use crate::config::TelemetrySection;

/// The most spans that wait for their export.
const WAITING: usize = 16 * 1024;

/// The most spans in one request.
const TOGETHER: usize = 512;

/// How long spans wait for others.
const GATHER: Duration = Duration::from_secs(1);

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);

/// How often a request is made before its spans are given up, and the pause between.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// The least time between two warnings.
const WARNED: Duration = Duration::from_secs(30);

/// The export of one replica's spans.
pub struct Exporter {
    tracer: Arc<Tracer>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Where spans come from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The name of the replica.
    pub replica: String,
    /// The strategy that it runs under.
    pub strategy: &'static str,
}

impl Exporter {
    /// Begins to export, within a runtime; `None` where there is no collector.
    pub fn start(section: &TelemetrySection, origin: Origin, metrics: &SpanMetrics) -> Option<Self> {
        if section.otlp_endpoint.is_empty() {
            return None;
        }
        let (sender, spans) = mpsc::channel(WAITING);
        let tracer = Arc::new(Tracer::new(section.sample_ratio, sender, metrics.dropped.clone()));
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(REQUEST));
        let sender = Sender {
            client: Client::builder(TokioExecutor::new()).build(connector),
            url: format!("{}/v1/traces", section.otlp_endpoint.trim_end_matches('/')),
            origin,
            metrics: metrics.clone(),
            warned: None,
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(sender.run(spans, stop.clone()));
        Some(Self { tracer, stop, task })
    }

    /// Takes spans.
    pub fn tracer(&self) -> &Arc<Tracer> {
        &self.tracer
    }

    /// Takes no more spans, and exports those that wait, until `limit` is over.
    pub async fn close(self, limit: Duration) {
        self.stop.cancel();
        let mut task = self.task;
        if timeout(limit, &mut task).await.is_err() {
            task.abort();
        }
    }
}

struct Sender {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    origin: Origin,
    metrics: SpanMetrics,
    warned: Option<Instant>,
}

impl Sender {
    async fn run(mut self, mut spans: mpsc::Receiver<Span>, stop: CancellationToken) {
        let mut gathered = Vec::new();
        loop {
            let received = tokio::select! {
                received = spans.recv_many(&mut gathered, TOGETHER) => received,
                () = stop.cancelled(), if !spans.is_closed() => {
                    spans.close();
                    continue;
                }
            };
            if received == 0 {
                return;
            }
            let gather = async {
                while gathered.len() < TOGETHER {
                    let more = TOGETHER - gathered.len();
                    if spans.recv_many(&mut gathered, more).await == 0 {
                        break;
                    }
                }
            };
            tokio::select! {
                _ = timeout(GATHER, gather) => {}
                () = stop.cancelled() => {}
            }
            self.send(&gathered).await;
            gathered.clear();
        }
    }

    async fn send(&mut self, spans: &[Span]) {
        let count = spans.len() as u64;
        let body = Bytes::from(document(&self.origin, spans).to_string());
        for attempt in 1..=ATTEMPTS {
            match self.post(body.clone()).await {
                Ok(()) => {
                    self.metrics.exported.inc_by(count);
                    return;
                }
                Err(error) => self.warn(&error),
            }
            if attempt < ATTEMPTS {
                sleep(PAUSE).await;
            }
        }
        self.metrics.dropped.inc_by(count);
    }

    async fn post(&self, body: Bytes) -> Result<(), String> {
        let request = Request::post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let answered = async {
            let response = self.client.request(request).await.map_err(|error| cause(&error))?;
            let status = response.status();
            // Read, so that the connection can be used again.
            response.into_body().collect().await.map_err(|error| error.to_string())?;
            if status == StatusCode::OK { Ok(()) } else { Err(format!("it answered {status}")) }
        };
        timeout(REQUEST, answered).await.unwrap_or_else(|_| Err("it did not answer in time".into()))
    }

    fn warn(&mut self, error: &str) {
        if self.warned.is_none_or(|warned| warned.elapsed() >= WARNED) {
            self.warned = Some(Instant::now());
            tracing::warn!(error, collector = self.url, "traces cannot be exported now");
        }
    }
}

/// The first cause of an error; what it caused says no more.
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// An `ExportTraceServiceRequest` in JSON: identities in hexadecimal, 64-bit numbers as texts.
fn document(origin: &Origin, spans: &[Span]) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let resource = [
        ("service.name", Attribute::from("order-service")),
        ("service.version", Attribute::from(version)),
        ("service.instance.id", Attribute::from(origin.replica.as_str())),
        ("stocklock.strategy", Attribute::from(origin.strategy)),
    ];
    json!({"resourceSpans": [{
        "resource": {"attributes": attributes(&resource)},
        "scopeSpans": [{
            "scope": {"name": "order-service", "version": version},
            "spans": spans.iter().map(span).collect::<Vec<_>>(),
        }],
    }]})
}

fn span(span: &Span) -> Value {
    const SERVER: u8 = 2;
    const INTERNAL: u8 = 1;
    const ERROR: u8 = 2;
    let mut document = json!({
        "traceId": span.trace.to_string(),
        "spanId": span.id.to_string(),
        "parentSpanId": span.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        "name": span.name,
        "kind": if span.is_request { SERVER } else { INTERNAL },
        "startTimeUnixNano": span.start.to_string(),
        "endTimeUnixNano": span.end.to_string(),
        "attributes": attributes(&span.attributes),
    });
    if span.failed {
        document["status"] = json!({ "code": ERROR });
    }
    document
}

fn attributes(attributes: &[(&'static str, Attribute)]) -> Vec<Value> {
    let value = |value: &Attribute| match value {
        Attribute::Text(text) => json!({ "stringValue": text }),
        Attribute::Number(number) => json!({ "intValue": number.to_string() }),
    };
    attributes.iter().map(|(key, attribute)| json!({"key": key, "value": value(attribute)})).collect()
}
