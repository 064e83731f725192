//! Shops that are not ours, described by a file: a racy one is caught, an honest one is not, and a wrong
//! description gets a message that says what is wrong with it.

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use loadtest::fleet::Fleet;
use loadtest::shop::{Description, Load, ShopReport, rehearse, run};
use loadtest::verdict::{CheckName, Status, Verdict};
use order_service::config::StrategyName;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Ten in stock, wanted by forty.
fn load(rungs: &[usize]) -> Load {
    Load {
        rungs: rungs.to_vec(),
        repeat: 1,
        purchases: 40,
        stock: 10,
        quantity: 1,
        timeout: Duration::from_secs(10),
        settle: Duration::from_secs(10),
    }
}

fn describe(text: &str) -> anyhow::Result<Description> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("it can be written");
    Description::read(file.path())
}

async fn fire(shop: &Description, rungs: &[usize]) -> ShopReport {
    let rehearsal = rehearse(shop, &load(rungs)).await.expect("the shop is there");
    assert!(rehearsal.faults.is_empty(), "{rehearsal}");
    run(shop, &load(rungs), &CancellationToken::new()).await.expect("the runs come to their end")
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_service_gets_the_verdict_that_it_gets_from_those_who_know_it() {
    for (strategy, expected) in
        [(StrategyName::None, Verdict::Violated), (StrategyName::Database, Verdict::Correct)]
    {
        let plan = support::plan(strategy, 2).with("checkout.think_time", "2ms");
        let fleet = Fleet::start(plan).await.expect("the replicas start");
        let mut text =
            include_str!("../examples/stocklock/shop.toml").replace("{{env.TOKEN}}", fleet.token());
        for (number, client) in fleet.clients().iter().enumerate() {
            text = text.replace(&format!("{{{{env.SHOP_{}}}}}", number + 1), client.base());
        }
        let report = fire(&describe(&text).expect("a description"), &[8, 40]).await;
        assert_eq!(report.verdict, expected, "{report}");
        let oversold = report.runs.iter().any(|run| run.oversold > 0);
        assert_eq!(oversold, strategy == StrategyName::None, "{report}");
        fleet.stop().await.expect("the replicas stop");
    }
}

/// A shop with a cart, a session and a form: what it is asked to do wrong, it does.
#[derive(Default)]
struct Shop {
    stock: AtomicI64,
    sold: AtomicI64,
    sessions: AtomicU64,
    /// Held from the look at the stock to the sale, where the race is mended.
    lock: Mutex<()>,
    is_mended: bool,
}

impl Shop {
    async fn serve(is_mended: bool) -> String {
        let shop = Arc::new(Self { is_mended, ..Self::default() });
        let routes = Router::new()
            .route("/stock/{units}", post(stock))
            .route("/cart", get(cart))
            .route("/buy", post(buy))
            .route("/thanks", get(|| async { Html("<h1>Thank you</h1>") }))
            .route("/count", get(count))
            .route("/login", get(|| async { (StatusCode::FOUND, [("location", "/login")], "") }))
            .with_state(shop);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        url
    }
}

async fn stock(State(shop): State<Arc<Shop>>, Path(units): Path<i64>) {
    shop.stock.store(units, Ordering::SeqCst);
    shop.sold.store(0, Ordering::SeqCst);
}

async fn cart(State(shop): State<Arc<Shop>>) -> Response {
    let session = shop.sessions.fetch_add(1, Ordering::SeqCst);
    let page = format!("<form action='/buy'><input name='csrf' value='token-{session}'></form>");
    ([("set-cookie", format!("session={session}"))], Html(page)).into_response()
}

async fn buy(State(shop): State<Arc<Shop>>, headers: HeaderMap, form: String) -> Response {
    let cookie = headers.get("cookie").and_then(|cookie| cookie.to_str().ok()).unwrap_or_default();
    let session = cookie.strip_prefix("session=").unwrap_or("none");
    let fields: HashMap<_, _> = form_urlencoded::parse(form.as_bytes()).into_owned().collect();
    if fields.get("csrf") != Some(&format!("token-{session}")) {
        return (StatusCode::FORBIDDEN, "bad token").into_response();
    }
    let _guard = if shop.is_mended { Some(shop.lock.lock().await) } else { None };
    let left = shop.stock.load(Ordering::SeqCst);
    if left < 1 {
        return (StatusCode::FOUND, [("location", "/cart?error=sold-out")]).into_response();
    }
    // What a database takes.
    tokio::time::sleep(Duration::from_millis(5)).await;
    shop.stock.store(left - 1, Ordering::SeqCst);
    shop.sold.fetch_add(1, Ordering::SeqCst);
    (StatusCode::FOUND, [("location", "/thanks")]).into_response()
}

async fn count(State(shop): State<Arc<Shop>>) -> Json<Value> {
    let (sold, left) = (shop.sold.load(Ordering::SeqCst), shop.stock.load(Ordering::SeqCst));
    Json(json!({"orders": [{"units": sold}], "left": left}))
}

/// The description of that shop.
fn forms(url: &str) -> String {
    format!(
        r#"
name = "forms"
targets = ["{url}"]

[[setup]]
method = "POST"
path = "/stock/{{{{stock}}}}"

[[purchase]]
name = "cart"
path = "/cart"
captures = {{ csrf = {{ css = "input[name=csrf]" }} }}

[[purchase]]
name = "buy"
path = "/buy"
form = {{ csrf = "{{{{csrf}}}}", quantity = "{{{{quantity}}}}" }}
ok = [{{ status = 302, location = "/thanks" }}]
refused = [{{ status = 302, location = "sold-out" }}]

[truth.sold]
path = "/count"
jsonpath = "$.orders[*].units"
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_race_behind_a_form_is_found_and_once_it_is_mended_it_is_not() {
    let racy = describe(&forms(&Shop::serve(false).await)).expect("a description");
    let report = fire(&racy, &[4, 20]).await;
    assert_eq!(report.verdict, Verdict::Violated, "{report}");
    let control = &report.runs[0];
    assert_eq!((control.buyers, control.sold, control.verdict), (1, Some(10), Verdict::Correct), "{report}");
    let last = report.runs.last().expect("runs");
    assert!(last.oversold > 0 && last.sold == Some(10 + last.oversold), "{report}");
    assert!(report.headline().starts_with("OVERSOLD by "), "{report}");
    let mended = describe(&forms(&Shop::serve(true).await)).expect("a description");
    let report = fire(&mended, &[4, 20]).await;
    assert_eq!(report.verdict, Verdict::Correct, "{report}");
    assert!(report.headline().contains("0 of 2 concurrent runs"), "{report}");
    let checks = &report.runs[1].checks;
    let balanced = checks.iter().find(|check| check.name == CheckName::Balanced).expect("a check");
    assert_eq!(balanced.status, Status::NotApplicable, "there is no truth.left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_description_is_told_what_is_wrong_with_it() {
    let url = Shop::serve(true).await;
    let right = forms(&url);
    // What is changed, into what, and what the message has to name.
    let wrong: [(&str, &str, &[&str]); 20] = [
        ("name = \"forms\"", "nmae = \"forms\"", &["nmae"]),
        ("[[purchase]]", "[[purchases]]", &["purchases"]),
        ("targets = [", "targets = [\"ftp://x\", ", &["targets", "ftp"]),
        ("{{csrf}}", "{{token}}", &["purchase, step 2: buy", "{{token}}", "csrf"]),
        ("{{stock}}", "{{stock", &["setup, step 1"]),
        ("input[name=csrf]", "input[[", &["captures.csrf", "input[["]),
        ("$.orders[*].units", "$.orders[", &["truth.sold", "JSONPath"]),
        ("status = 302, location = \"/thanks\"", "status = \"30x\"", &["purchase, step 2: buy", "ok", "30x"]),
        (
            "{ css = \"input[name=csrf]\" }",
            "{ css = \"a\", header = \"b\" }",
            &["captures.csrf", "exactly one"],
        ),
        (
            "path = \"/count\"",
            "sql = { database = \"mysql://x\", statement = \"select 1\" }",
            &["truth.sold", "postgres"],
        ),
        ("input[name=csrf]", "input[name=none]", &["cart", "captures.csrf", "finds nothing"]),
        ("path = \"/cart\"", "path = \"/kart\"", &["cart", "404"]),
        ("path = \"/cart\"", "path = \"/login\"", &["cart", "302", "/login"]),
        ("location = \"/thanks\"", "location = \"/danke\"", &["buy", "neither ok nor refused", "/thanks"]),
        ("location = \"sold-out\"", "location = \"empty\"", &["a refusal is not recognised", "sold-out"]),
        (
            "location = \"sold-out\" }",
            "location = \"empty\" }, { status = 403 }",
            &["a refusal is not recognised"],
        ),
        ("path = \"/stock/", "path = \"/stok/", &["setup, step 1", "404"]),
        ("$.orders[*].units", "$.left", &["truth.sold", "before a purchase"]),
        ("path = \"/count\"", "path = \"/thanks\"", &["truth.sold", "not JSON"]),
        (&url, "http://127.0.0.1:1", &["127.0.0.1:1", "refused"]),
    ];
    for (right_part, wrong_part, named) in wrong {
        let text = right.replacen(right_part, wrong_part, 1);
        assert_ne!(text, right, "{right_part} is not there");
        let said = match describe(&text) {
            Err(error) => format!("{error:#}"),
            Ok(shop) => match rehearse(&shop, &load(&[2])).await {
                Err(error) => format!("{error:#}"),
                Ok(rehearsal) => {
                    assert!(!rehearsal.faults.is_empty(), "{wrong_part} is taken for right:\n{rehearsal}");
                    rehearsal.faults.join("\n")
                }
            },
        };
        for part in named {
            assert!(said.contains(part), "{wrong_part}: {part:?} is not named: {said}");
        }
    }
}
