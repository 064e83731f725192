//! What is logged of requests.

use futures_util::{StreamExt as _, stream};
use serde_json::Value;

use crate::process::{Process, TOKEN};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test]
async fn by_default_a_slow_request_has_a_line_with_its_trace() {
    let keys = [("failpoints.before_commit", "stall 200ms"), ("log.slow", "100ms")];
    let replica = Process::start(&keys).await;
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let slow = replica.order(1).header("traceparent", &parent).header("x-request-id", "the-slow-one");
    assert_eq!(slow.send().await.expect("an answer").status(), 201);
    let log = replica.log();
    let line =
        log.lines().find(|line| line.contains("POST /v1/orders 201")).unwrap_or_else(|| panic!("{log}"));
    for part in [
        " INFO access",
        "request_id=\"the-slow-one\"",
        &format!("trace_id={TRACE}"),
        "route=\"/v1/orders\"",
        "duration_ms=",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[tokio::test]
async fn by_default_a_failure_has_a_line_that_names_its_path_and_no_other_request_has() {
    let replica = Process::start(&[("server.drain", "30s"), ("log.slow", "1h")]).await;
    assert_eq!(replica.get("/livez").await.status(), 200);
    assert_eq!(replica.get("/nowhere").await.status(), 404);
    assert_eq!(replica.order(1).send().await.expect("an answer").status(), 201);
    replica.stop();
    let failed = loop {
        let answer = replica.get("/readyz?a=query").await;
        if answer.status() == 503 {
            break answer.headers()["x-request-id"].to_str().expect("ASCII").to_owned();
        }
    };
    // It would drain for long.
    let log = replica.kill_when_logged("GET /readyz 503").await;
    let requests: Vec<_> = log.lines().filter(|line| line.contains("method=")).collect();
    let [down] = requests[..] else { panic!("{log}") };
    for part in [
        "GET /readyz 503",
        " WARN access",
        &format!("request_id=\"{failed}\""),
        "problem=\"shutting-down\"",
        "detail=\"this replica is stopping",
    ] {
        assert!(down.contains(part), "{part}: {down}");
    }
    assert!(!log.contains("query"), "{log}");
}

#[tokio::test]
async fn the_access_log_is_one_object_a_line_for_every_request_and_has_no_secret() {
    let replica = Process::start(&[("log.format", "json"), ("log.access", "true")]).await;
    let key = "a-secret-key-of-a-client";
    let order = replica.order(1).header("idempotency-key", key).header("x-request-id", "a \"quoted\" one");
    assert_eq!(order.send().await.expect("an answer").status(), 201);
    assert_eq!(replica.order(1_000).send().await.expect("an answer").status(), 409);
    let audit = replica.http.get(format!("{}/v1/admin/products/hair-dryer/audit", replica.url));
    assert_eq!(audit.bearer_auth(TOKEN).send().await.expect("an answer").status(), 200);
    let refused = replica.http.get(format!("{}/v1/admin/products/hair-dryer/audit", replica.url));
    assert_eq!(refused.bearer_auth("guessed").send().await.expect("an answer").status(), 401);
    assert_eq!(replica.get("/v1/orders?cursor=a-cursor-that-is-none").await.status(), 422);
    let log = replica.log();
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let requests: Vec<_> = lines.iter().filter(|line| line["target"] == "access").collect();
    let statuses: Vec<_> = requests.iter().map(|line| line["status"].as_u64().expect("a number")).collect();
    assert_eq!(statuses, [201, 409, 200, 401, 422], "{log}");
    assert_eq!(requests[0]["request_id"], "a \"quoted\" one");
    assert_eq!(requests[0]["method"], "POST");
    assert_eq!(requests[0]["path"], "/v1/orders");
    assert_eq!(requests[1]["problem"], "insufficient-stock");
    assert_eq!(requests[2]["route"], "/v1/admin/products/{sku}/audit");
    assert!(requests.iter().all(|line| line["duration_ms"].is_f64()), "{log}");
    for secret in [TOKEN, key, "guessed", "a-cursor-that-is-none"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stops_no_order_and_says_how_much_it_lacks() {
    // More than wait in the pipe and in the process.
    const REQUESTS: usize = 12_000;
    let mut replica = Process::start_unread(&[("log.access", "true")]).await;
    stream::iter(0..REQUESTS)
        .for_each_concurrent(32, |_| async { assert_eq!(replica.get("/v1/info").await.status(), 200) })
        .await;
    let metrics = replica.get("/metrics").await.text().await.expect("a text");
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("stocklock_log_lines_dropped_total "));
    let dropped: usize = dropped.expect(&metrics).parse().expect("a number");
    assert!(dropped > 0, "more was kept than is to be");
    assert_eq!(replica.order(1).send().await.expect("an answer").status(), 201);
    replica.read_log();
    let log = replica.log();
    // The last two may have come too late to be counted, or too early to be read.
    let lines = log.lines().filter(|line| line.contains("method=")).count();
    assert!((REQUESTS..=REQUESTS + 2).contains(&(lines + dropped)), "{lines} + {dropped}");
}

#[tokio::test]
async fn what_is_no_traceparent_is_ignored() {
    let replica = Process::start(&[("log.access", "true")]).await;
    let order = replica.order(1).header("traceparent", "00-nonsense-nonsense-01");
    assert_eq!(order.send().await.expect("an answer").status(), 201);
    let log = replica.log();
    assert!(log.contains("POST /v1/orders 201") && !log.contains("trace_id"), "{log}");
}
