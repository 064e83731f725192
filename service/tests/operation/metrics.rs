//! The metrics: by Prometheus' conventions, and as their page has them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::process::{Process, SKU, TOKEN};

/// The page.
const PAGE: &str = include_str!("../../docs/metrics.md");

/// The families of a text in Prometheus' format, with their types.
pub fn families(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

/// The metrics of the page, with their types.
fn described() -> BTreeMap<String, String> {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    let metrics =
        cells.filter(|cells| cells.len() > 3 && ["counter", "gauge", "histogram"].contains(&cells[1]));
    metrics.map(|cells| (cells[0].trim_end_matches('`').to_owned(), cells[1].to_owned())).collect()
}

/// The metrics of a replica that has been asked for a little of everything.
async fn exercised(replica: &Process) -> String {
    for quantity in [1, 1_000] {
        replica.order(quantity).send().await.expect("an answer");
    }
    for path in ["/readyz", "/nowhere", "/v1/products", "/v1/orders?limit=none"] {
        replica.get(path).await;
    }
    let admin = |method, path: &str| {
        replica
            .http
            .request(method, format!("{}/v1/admin/products/{SKU}{path}", replica.url))
            .bearer_auth(TOKEN)
    };
    admin(Method::GET, "/audit").send().await.expect("an answer");
    let restock = json!({"quantity": 1, "reason": "a delivery"});
    admin(Method::POST, "/restock").json(&restock).send().await.expect("an answer");
    replica.get("/metrics").await.text().await.expect("text")
}

#[tokio::test]
async fn promtool_has_nothing_to_complain_of() {
    let replica = Process::start(&[]).await;
    let text = exercised(&replica).await;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, of Debian's package prometheus, can be run");
    promtool.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
    let output = promtool.wait_with_output().expect("its end");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

#[tokio::test]
async fn the_page_has_every_metric_and_no_other() {
    let replica = Process::start(&[]).await;
    let shown = families(&exercised(&replica).await);
    assert!(shown.len() > 20, "{shown:?}");
    assert_eq!(described(), shown);
}

#[tokio::test]
async fn the_format_is_the_one_that_is_asked_for() {
    let replica = Process::start(&[]).await;
    let text = replica.get("/metrics").await;
    assert_eq!(text.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = text.text().await.expect("text");
    assert!(
        text.contains("# TYPE stocklock_lock_holds_total counter\n") && !text.contains("# EOF"),
        "{text}"
    );
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let open = replica.http.get(format!("{}/metrics", replica.url)).header("accept", accept);
    let open = open.send().await.expect("an answer");
    assert_eq!(open.headers()["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let open = open.text().await.expect("text");
    assert!(open.contains("# TYPE stocklock_lock_holds counter\n") && open.ends_with("# EOF\n"), "{open}");
}

/// The value of a series, whose labels are all that is in `{…}` but for the strategy.
fn value(text: &str, series: &str) -> f64 {
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let comma = if labels == "}" { "" } else { "," };
    let start = format!("{name}{{strategy=\"database\"{comma}{labels} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("{start}: {text}")).parse().expect("a number")
}

/// The metrics, as soon as they are as expected.
async fn until(replica: &Process, is_so: impl Fn(&str) -> bool) -> String {
    let begun = Instant::now();
    loop {
        let text = replica.get("/metrics").await.text().await.expect("text");
        if is_so(&text) {
            return text;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{text}");
    }
}

#[tokio::test]
async fn what_became_of_orders_is_counted() {
    let replica = Process::start(&[("checkout.payment_window", "5s")]).await;
    let order =
        |quantity: i64, key: &'static str| replica.order(quantity).header("idempotency-key", key).send();
    let first = order(1, "first").await.expect("an answer");
    let first: serde_json::Value = first.json().await.expect("an order");
    assert_eq!(order(1, "first").await.expect("an answer").status(), 201);
    assert_eq!(order(100, "too-many").await.expect("an answer").status(), 409);
    let id = first["id"].as_str().expect("an identity");
    let change =
        |id: &str, what: &str| replica.http.post(format!("{}/v1/orders/{id}/{what}", replica.url)).send();
    assert_eq!(change(id, "pay").await.expect("an answer").status(), 200);
    assert_eq!(change(id, "cancel").await.expect("an answer").status(), 200);
    assert_eq!(order(1, "never-paid").await.expect("an answer").status(), 201);
    let expired = "stocklock_orders_total{action=\"expire\",outcome=\"expired\"}";
    let text = until(&replica, |text| value(text, expired) == 1.0).await;
    let count = |action, outcome| {
        value(&text, &format!("stocklock_orders_total{{action=\"{action}\",outcome=\"{outcome}\"}}"))
    };
    assert_eq!(count("place", "awaiting_payment"), 2.0, "{text}");
    assert_eq!(count("place", "replayed"), 1.0, "{text}");
    assert_eq!(count("place", "insufficient_stock"), 1.0, "{text}");
    assert_eq!(count("pay", "paid"), 1.0, "{text}");
    assert_eq!(count("cancel", "cancelled"), 1.0, "{text}");
}

#[tokio::test]
async fn orders_that_wait_are_counted_and_so_are_those_whose_clients_go() {
    // The first is on its way when the others come, which wait for it.
    let keys = [
        ("failpoints.before_commit", "stall 5m"),
        ("checkout.max_batch", "1"),
        ("lock.wait", "5m"),
        ("server.request_timeout", "5m"),
    ];
    let replica = Process::start(&keys).await;
    let orders: Vec<_> = (0..3).map(|_| tokio::spawn(replica.order(1).send())).collect();
    let text = until(&replica, |text| value(text, "stocklock_checkout_waiting") == 2.0).await;
    assert_eq!(value(&text, "stocklock_checkout_longest_queue"), 2.0);
    assert_eq!(value(&text, "stocklock_checkout_queue_limit"), 10_000.0);
    orders.iter().for_each(tokio::task::JoinHandle::abort);
    let gone = |text: &str, outcome: &str| {
        value(text, &format!("stocklock_orders_total{{action=\"place\",outcome=\"{outcome}\"}}"))
    };
    let text = until(&replica, |text| gone(text, "withdrawn") + gone(text, "unanswered") == 3.0).await;
    // The one whose turn had come may be in the database.
    assert_eq!((gone(&text, "withdrawn"), gone(&text, "unanswered")), (2.0, 1.0), "{text}");
}

#[tokio::test]
async fn an_audit_and_readiness_can_be_seen() {
    let replica = Process::start(&[]).await;
    let before = replica.get("/metrics").await.text().await.expect("text");
    assert_eq!(value(&before, "stocklock_audits_total{result=\"balanced\"}"), 0.0);
    assert_eq!(value(&before, "stocklock_audits_total{result=\"unbalanced\"}"), 0.0);
    assert_eq!(value(&before, "stocklock_ready"), 0.0);
    let after = exercised(&replica).await;
    assert_eq!(value(&after, "stocklock_audits_total{result=\"balanced\"}"), 1.0);
    assert_eq!(value(&after, "stocklock_ready"), 1.0);
}

/// All names of metrics that may stand in a query: with the suffixes of a histogram's series.
pub fn names() -> BTreeSet<String> {
    let suffixed = |(name, kind): (String, String)| match kind.as_str() {
        "histogram" => ["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")).to_vec(),
        _ => vec![name],
    };
    described().into_iter().flat_map(suffixed).collect()
}
