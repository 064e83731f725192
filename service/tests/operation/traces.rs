//! Traces: what a collector gets of an order.

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::process::Process;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector, which hands on what it gets.
struct Collector {
    endpoint: String,
    requests: mpsc::UnboundedReceiver<ExportTraceServiceRequest>,
}

impl Collector {
    /// One that answers the first requests with these statuses, and the others with 200.
    async fn start(statuses: &'static [u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let (taken, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut statuses = statuses.iter().copied();
            while let Ok((mut stream, _)) = listener.accept().await {
                let body = body_of(&mut stream).await;
                let status = statuses.next().unwrap_or(200);
                if status == 200 {
                    taken.send(serde_json::from_slice(&body).expect("OTLP in JSON")).ok();
                }
                let answer =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
                stream.write_all(answer.as_bytes()).await.expect("it reads");
            }
        });
        Self { endpoint, requests }
    }

    /// Collects spans until there is one of this name.
    async fn spans_until(&mut self, name: &str) -> Vec<(Span, Vec<KeyValue>)> {
        let mut spans = Vec::new();
        while !spans.iter().any(|(span, _): &(Span, _)| span.name == name) {
            let request = tokio::time::timeout(Duration::from_secs(60), self.requests.recv()).await;
            let request = request.unwrap_or_else(|_| panic!("no {name} among {spans:?}")).expect("a request");
            for resource in request.resource_spans {
                let of = resource.resource.expect("a resource").attributes;
                let scopes = resource.scope_spans.into_iter();
                spans.extend(scopes.flat_map(|scope| scope.spans).map(|span| (span, of.clone())));
            }
        }
        spans
    }
}

/// The body of one request, which has to be a POST of JSON to the place for traces.
async fn body_of(stream: &mut tokio::net::TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    loop {
        let mut part = [0; 4096];
        let length = stream.read(&mut part).await.expect("it sends");
        assert!(length > 0, "the request broke off");
        read.extend_from_slice(&part[..length]);
        let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
        assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
        assert!(head.contains("\r\ncontent-type: application/json"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        if read.len() >= end + 4 + length.parse::<usize>().expect("a number") {
            return read.split_off(end + 4);
        }
    }
}

fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    };
    attributes.iter().filter_map(|attribute| Some((attribute.key.clone(), text(attribute)?))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn an_order_shows_its_wait_for_the_lock_its_hold_and_its_commit() {
    let mut collector = Collector::start(&[]).await;
    let keys = [("telemetry.otlp_endpoint", collector.endpoint.as_str()), ("log.access", "true")];
    let replica = Process::start(&keys).await;
    let order = replica.order(1).header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    assert_eq!(order.send().await.expect("an answer").status(), 201);
    let mut spans = collector.spans_until("hold").await;
    while !spans.iter().any(|(span, _)| span.kind() == SpanKind::Server) {
        spans.extend(collector.spans_until("POST /v1/orders").await);
    }
    let (request, resource) = spans.iter().find(|(span, _)| span.kind() == SpanKind::Server).expect("one");
    assert_eq!(request.name, "POST /v1/orders");
    assert_eq!((hex(&request.trace_id), hex(&request.parent_span_id)), (TRACE.into(), PARENT.into()));
    let said = attributes(&request.attributes);
    assert_eq!(said["http.response.status_code"], "201");
    assert_eq!(said["http.route"], "/v1/orders");
    let resource = attributes(resource);
    assert_eq!((&*resource["service.name"], &*resource["stocklock.strategy"]), ("order-service", "database"));
    for name in ["queue", "lock wait", "commit", "hold"] {
        let (span, _) = spans.iter().find(|(span, _)| span.name == name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!((&span.trace_id, &span.parent_span_id), (&request.trace_id, &request.span_id), "{name}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{name}");
        assert!(span.start_time_unix_nano >= request.start_time_unix_nano, "{name}");
    }
    let times = |name: &str| {
        let (span, _) = spans.iter().find(|(span, _)| span.name == name).expect("it is there");
        (span.start_time_unix_nano, span.end_time_unix_nano)
    };
    // One after the other: the lock, then the commit within the hold.
    assert!(times("lock wait").1 <= times("hold").0);
    assert!(times("hold").0 <= times("commit").0 && times("commit").1 <= times("hold").1);
    let log = replica.log();
    assert!(log.contains(&format!("trace_id={TRACE}")), "{log}");
}

#[tokio::test]
async fn a_request_that_its_sender_does_not_trace_is_not_traced_and_one_without_a_sender_is() {
    let mut collector = Collector::start(&[]).await;
    let replica = Process::start(&[("telemetry.otlp_endpoint", &collector.endpoint)]).await;
    let order = replica.order(1).header("traceparent", format!("00-{TRACE}-{PARENT}-00"));
    assert_eq!(order.send().await.expect("an answer").status(), 201);
    assert_eq!(replica.get("/readyz").await.status(), 200);
    assert_eq!(replica.get("/v1/orders?limit=none").await.status(), 422);
    let spans = collector.spans_until("GET /v1/orders").await;
    assert_eq!(spans.len(), 1, "{spans:?}");
    let (span, _) = &spans[0];
    assert!(span.parent_span_id.is_empty() && span.trace_id.iter().any(|byte| *byte != 0));
    assert_eq!(attributes(&span.attributes)["error.type"], "validation");
}

#[tokio::test]
async fn a_collector_that_fails_costs_no_order_and_gets_the_spans_when_it_is_back() {
    let mut collector = Collector::start(&[503, 503]).await;
    let replica = Process::start(&[("telemetry.otlp_endpoint", &collector.endpoint)]).await;
    assert_eq!(replica.order(1).send().await.expect("an answer").status(), 201);
    let spans = collector.spans_until("POST /v1/orders").await;
    assert!(!spans.is_empty());
    let text = replica.get("/metrics").await.text().await.expect("text");
    assert!(text.contains("stocklock_spans_total{strategy=\"database\",result=\"dropped\"} 0"), "{text}");
    let log = replica.log();
    assert_eq!(log.matches("traces cannot be exported now").count(), 1, "{log}");
}

#[tokio::test]
async fn the_last_spans_are_exported_when_the_replica_stops() {
    let mut collector = Collector::start(&[]).await;
    let replica = Process::start(&[("telemetry.otlp_endpoint", &collector.endpoint)]).await;
    assert_eq!(replica.order(1).send().await.expect("an answer").status(), 201);
    replica.log();
    collector.spans_until("POST /v1/orders").await;
}

#[tokio::test]
async fn without_a_collector_there_is_no_order_less() {
    // Nobody listens there.
    let replica = Process::start(&[("telemetry.otlp_endpoint", "http://127.0.0.1:1")]).await;
    assert_eq!(replica.order(1).send().await.expect("an answer").status(), 201);
    replica.log();
}
