//! Shops of other people, as far as tests need them: what they are asked to do wrong, they do.

// Not every test file uses all of it.
#![allow(dead_code)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use loadtest::shop::{Arrival, Description, Door, Load, Owner};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

/// Ten in stock, wanted by forty.
pub fn load(rungs: &[usize]) -> Load {
    Load {
        arrivals: rungs.iter().map(|buyers| Arrival::Buyers(*buyers)).collect(),
        repeat: 1,
        purchases: 40,
        stock: 10,
        quantity: 1,
        replays: 0.3,
        twins: 0.3,
        rendezvous: false,
        door: Door::new(Duration::from_secs(10), Owner::default()),
        settle: Duration::from_secs(4),
    }
}

/// A description from its text.
pub fn describe(text: &str) -> anyhow::Result<Description> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("it can be written");
    Description::read(file.path())
}

/// Serves a shop on a port of its own, for as long as the test goes on.
pub async fn serve(routes: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

/// A shop with a cart, a session and a form: what it is asked to do wrong, it does.
#[derive(Default)]
pub struct Shop {
    stock: AtomicI64,
    sold: AtomicI64,
    sessions: AtomicU64,
    carts: AtomicU64,
    /// Held from the look at the stock to the sale, where the race is mended.
    lock: Mutex<()>,
    is_mended: bool,
}

impl Shop {
    pub async fn serve(is_mended: bool) -> String {
        let shop = Arc::new(Self { is_mended, ..Self::default() });
        let routes = Router::new()
            .route("/stock/{units}", post(stock))
            .route("/add/{units}", post(add))
            .route("/cart", get(cart))
            .route("/buy", post(buy))
            .route("/thanks", get(|| async { Html("<h1>Thank you</h1>") }))
            .route("/count", get(count))
            .route("/login", get(|| async { (StatusCode::FOUND, [("location", "/login")], "") }))
            .with_state(shop);
        serve(routes).await
    }
}

async fn stock(State(shop): State<Arc<Shop>>, Path(units): Path<i64>) {
    shop.stock.store(units, Ordering::SeqCst);
    shop.sold.store(0, Ordering::SeqCst);
}

async fn add(State(shop): State<Arc<Shop>>, Path(units): Path<i64>) {
    shop.stock.fetch_add(units, Ordering::SeqCst);
}

async fn cart(State(shop): State<Arc<Shop>>) -> Response {
    let session = shop.sessions.fetch_add(1, Ordering::SeqCst);
    shop.carts.fetch_add(1, Ordering::SeqCst);
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
    // More is in the record than was sold, once there is something.
    let crooked = sold * 2;
    let restless = shop.sessions.fetch_add(1, Ordering::SeqCst);
    Json(json!({
        "orders": [{"units": sold}], "left": left, "half": 0.5,
        "carts": shop.carts.load(Ordering::SeqCst), "crooked": crooked, "restless": restless
    }))
}

/// The description of that shop.
pub fn forms(url: &str) -> String {
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

/// A shop that knows idempotency keys, or only says so.
pub struct Keyed {
    is_honest: bool,
    state: Mutex<KeyedState>,
}

#[derive(Default)]
struct KeyedState {
    stock: usize,
    orders: Vec<String>,
    by_key: HashMap<String, String>,
}

impl Keyed {
    pub async fn serve(is_honest: bool) -> String {
        let shop = Arc::new(Self { is_honest, state: Mutex::default() });
        let routes = Router::new()
            .route("/stock/{units}", post(restock))
            .route("/orders", get(orders).post(order))
            .with_state(shop);
        serve(routes).await
    }
}

async fn restock(State(shop): State<Arc<Keyed>>, Path(units): Path<usize>) {
    let mut state = shop.state.lock().await;
    *state = KeyedState { stock: state.orders.len() + units, ..std::mem::take(&mut state) };
}

async fn orders(State(shop): State<Arc<Keyed>>) -> Json<Value> {
    let state = shop.state.lock().await;
    let orders: Vec<_> = state.orders.iter().map(|id| json!({"id": id, "units": 1})).collect();
    Json(json!({"orders": orders}))
}

async fn order(State(shop): State<Arc<Keyed>>, headers: HeaderMap) -> Response {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default().to_owned();
    let mut state = shop.state.lock().await;
    if let Some(id) = state.by_key.get(&key).filter(|_| shop.is_honest) {
        return (StatusCode::OK, Json(json!({"id": id}))).into_response();
    }
    if state.orders.len() >= state.stock {
        return (StatusCode::CONFLICT, Json(json!({"error": "sold out"}))).into_response();
    }
    let id = format!("order-{}", state.orders.len());
    state.orders.push(id.clone());
    state.by_key.insert(key, id.clone());
    (StatusCode::CREATED, Json(json!({"id": id}))).into_response()
}

/// The description of that shop.
pub fn keyed(url: &str) -> String {
    format!(
        r#"
name = "keyed"
targets = ["{url}"]

[[setup]]
method = "POST"
path = "/stock/{{{{stock}}}}"

[[purchase]]
name = "order"
method = "POST"
path = "/orders"
headers = {{ idempotency-key = "{{{{key}}}}" }}
idempotent = true
captures = {{ order = {{ jsonpath = "$.id" }} }}
refused = [{{ status = 409 }}]

[truth.sold]
path = "/orders"
jsonpath = "$.orders[*].units"

[truth.orders]
path = "/orders"
jsonpath = "$.orders[*].id"
"#
    )
}

/// A shop whose stock is in a database, and sold by one statement.
pub enum Counter {
    Postgres(sqlx::PgPool),
    Mysql(sqlx::MySqlPool),
    Sqlite(sqlx::SqlitePool),
}

const SELL: &str = "update item set sold = sold + 1, in_stock = in_stock - 1 where in_stock > 0";

impl Counter {
    pub async fn serve(database: &str) -> String {
        let shop = match database.split(':').next() {
            Some("postgres") => Self::Postgres(sqlx::PgPool::connect_lazy(database).expect("a URL")),
            Some("mysql") => Self::Mysql(sqlx::MySqlPool::connect_lazy(database).expect("a URL")),
            _ => Self::Sqlite(sqlx::SqlitePool::connect_lazy(database).expect("a URL")),
        };
        serve(Router::new().route("/buy", post(sell)).with_state(Arc::new(shop))).await
    }
}

async fn sell(State(shop): State<Arc<Counter>>) -> StatusCode {
    let changed = match &*shop {
        Counter::Postgres(pool) => sqlx::query(SELL).execute(pool).await.expect("it is done").rows_affected(),
        Counter::Mysql(pool) => sqlx::query(SELL).execute(pool).await.expect("it is done").rows_affected(),
        Counter::Sqlite(pool) => sqlx::query(SELL).execute(pool).await.expect("it is done").rows_affected(),
    };
    if changed == 1 { StatusCode::CREATED } else { StatusCode::CONFLICT }
}

/// The description of that shop.
pub fn by_sql(url: &str, database: &str) -> String {
    format!(
        r#"
name = "counter"
targets = ["{url}"]

[variables]
database = "{database}"

[[setup]]
sql.database = "{{{{database}}}}"
sql.statement = """
drop table if exists item;
create table item (sold integer not null, in_stock integer not null);
insert into item values (0, {{{{stock}}}})
"""

[[purchase]]
name = "buy"
method = "POST"
path = "/buy"
refused = [{{ status = 409 }}]

[truth]
sold.sql = {{ database = "{{{{database}}}}", statement = "select sum(sold) from item" }}
left.sql = {{ database = "{{{{database}}}}", statement = "select in_stock from item" }}
"#
    )
}
