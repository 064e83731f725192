//! The shop's replicas, as the load generator sees them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use loadtest::client::Client;
use loadtest::problem::ProblemKind;
use order_service::api::{
    AdjustmentList, Audit, Clock, HoldRecord, IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED, LockStatus, NewOrder,
    Order, OrderOutcome, OrderPage, OrderStatus, Product, PutProduct, Restock, Stock,
};
use order_service::clock::now_ns;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::shop::{Lie, Replica, Shop};

/// How many replicas a shop has.
const REPLICAS: usize = 3;

/// By when the answer to an order has arrived at its buyer, also on a busy machine.
const ANSWERED_NS: u64 = 1_000_000_000;

/// A problem document that says that nothing was written.
fn refusal(status: StatusCode, kind: &ProblemKind, more: serde_json::Value) -> Response {
    let mut body = json!({
        "type": format!("/problems/{kind}"), "title": kind.slug(), "status": status.as_u16(),
        "detail": kind.slug(), "request_id": "1", "outcome": OrderOutcome::NotExecuted,
    });
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    (status, Json(body)).into_response()
}

fn confirmed(order: &Order, replayed: bool) -> Response {
    let mut response = (StatusCode::CREATED, Json(order.clone())).into_response();
    if replayed {
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, "true".parse().expect("ASCII"));
    }
    response
}

/// A connection that breaks off in the middle of the answer.
fn broken() -> Response {
    let parts = [Ok("{"), Err(std::io::Error::other("cut"))];
    Response::new(Body::from_stream(futures_util::stream::iter(parts)))
}

async fn place(
    State(replica): State<Replica>,
    headers: HeaderMap,
    Json(request): Json<NewOrder>,
) -> Response {
    let key = headers[IDEMPOTENCY_KEY].to_str().expect("ASCII").to_owned();
    let came = now_ns();
    // So that some are under way at the same time.
    sleep(Duration::from_millis(1)).await;
    if replica.lies(Lie::NeverRecovers) && replica.shop.started.elapsed() > Duration::from_millis(600) {
        sleep(Duration::from_secs(1)).await;
        return refusal(StatusCode::SERVICE_UNAVAILABLE, &ProblemKind::LockTimeout, json!({}));
    }
    match decide(&replica, key, came, request) {
        Some(response) => response,
        None => std::future::pending().await,
    }
}

/// Decides on an order; `None`: there is never an answer.
fn decide(replica: &Replica, key: String, came: u64, request: NewOrder) -> Option<Response> {
    let mut shelf = replica.shelf();
    shelf.asked += 1;
    let sometimes = shelf.asked.is_multiple_of(25);
    let known =
        shelf.keys.get(&key).and_then(|id| shelf.orders.iter().find(|order| order.id == *id).cloned());
    if let Some(order) = known
        && !replica.lies(Lie::TwinsBuyTwice)
    {
        let another = Order { id: Uuid::now_v7(), ..order.clone() };
        return Some(confirmed(if replica.lies(Lie::ReplayIsAnother) { &another } else { &order }, true));
    }
    let stock = shelf.product().stock;
    if replica.lies(Lie::FalseSoldOut) && stock <= 3 || stock < request.quantity {
        let one_more = replica.lies(Lie::OneTooMany) && !shelf.has_lied;
        if !one_more {
            shelf.hold(replica, None);
            let available = if replica.lies(Lie::FalseSoldOut) { 0 } else { stock };
            let version = shelf.product().version;
            let more = json!({"requested": request.quantity, "available": available, "version": version});
            return Some(refusal(StatusCode::CONFLICT, &ProblemKind::InsufficientStock, more));
        }
        shelf.has_lied = true;
        let order = shelf.sell(replica, &request, 0);
        return Some(confirmed(&order, false));
    }
    if replica.lies(Lie::RefusalCommits) && sometimes {
        let replica = replica.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(200)).await;
            let mut shelf = replica.shelf();
            if shelf.product().stock >= request.quantity {
                shelf.sell(&replica, &request, request.quantity);
            }
        });
        return Some(refusal(StatusCode::SERVICE_UNAVAILABLE, &ProblemKind::LockTimeout, json!({})));
    }
    if replica.lies(Lie::NoAnswer) && shelf.asked >= 50 && !shelf.has_lied {
        shelf.has_lied = true;
        return None;
    }
    if replica.lies(Lie::OrdersSwap) {
        if let Some((gap, since)) = shelf.gap.clone()
            && came > since + ANSWERED_NS
        {
            // It takes a place before an order that was confirmed before this one came.
            shelf.gap = None;
            let order = Order { id: Uuid::now_v7(), buyer: request.buyer, quantity: request.quantity, ..gap };
            shelf.orders.push(order.clone());
            shelf.keys.insert(key, order.id);
            return Some(confirmed(&order, false));
        }
        if shelf.gap.is_none() && !shelf.has_lied && shelf.asked > 20 && stock > 10 {
            shelf.has_lied = true;
            let place = shelf.sell(replica, &request, request.quantity);
            shelf.orders.pop();
            let order = shelf.sell(replica, &request, request.quantity);
            shelf.keys.insert(key, order.id);
            shelf.gap = Some((place, now_ns()));
            return Some(confirmed(&order, false));
        }
    }
    let mut order = shelf.sell(replica, &request, request.quantity);
    match replica.shop.lie {
        Lie::KeyIsLost if sometimes => return Some(broken()),
        Lie::OrderIsLost if sometimes => drop(shelf.orders.pop()),
        Lie::OrderIsInvented if shelf.asked >= 50 && !shelf.has_lied => {
            shelf.has_lied = true;
            let mallory = NewOrder { buyer: "Mallory".into(), ..request };
            shelf.sell(replica, &mallory, 1);
        }
        Lie::AnswerDiffers if sometimes => order.stock_after += 1,
        _ => {}
    }
    shelf.keys.insert(key, order.id);
    if replica.lies(Lie::AnswerIsLost) && sometimes {
        return Some(broken());
    }
    Some(confirmed(&order, false))
}

async fn cancel(State(replica): State<Replica>, Path(id): Path<Uuid>) -> Response {
    let mut shelf = replica.shelf();
    let order = shelf.orders.iter_mut().find(|order| order.id == id);
    let Some(order) = order else {
        return refusal(StatusCode::NOT_FOUND, &ProblemKind::NoSuchOrder, json!({}));
    };
    order.status = OrderStatus::Cancelled;
    let order = order.clone();
    let adjustment = shelf.adjust(order.quantity, format!("cancelled {id}"));
    shelf.hold(&replica, Some(adjustment.version));
    if replica.lies(Lie::UnitsAreKept) {
        shelf.product().stock -= order.quantity;
    }
    Json(order).into_response()
}

async fn restock(State(replica): State<Replica>, Json(request): Json<Restock>) -> Response {
    let mut shelf = replica.shelf();
    let times = if replica.lies(Lie::RestockTwice) { 2 } else { 1 };
    let mut adjustment = None;
    for _ in 0..times {
        let done = shelf.adjust(request.quantity, request.reason.clone());
        shelf.product().supply += request.quantity;
        shelf.hold(&replica, Some(done.version));
        adjustment = Some(done);
    }
    if replica.lies(Lie::RestockIsLost) {
        shelf.adjustments.pop();
    }
    (StatusCode::CREATED, Json(adjustment)).into_response()
}

async fn create(
    State(replica): State<Replica>,
    Path(sku): Path<String>,
    Json(request): Json<PutProduct>,
) -> Response {
    let product = Product {
        sku,
        name: request.name,
        stock: request.stock,
        version: 0,
        supply: request.stock,
        created_at: jiff::Timestamp::now(),
    };
    replica.shelf().product = Some(product.clone());
    (StatusCode::CREATED, Json(product)).into_response()
}

async fn stock(State(replica): State<Replica>, Query(query): Query<HashMap<String, String>>) -> Json<Stock> {
    let mut shelf = replica.shelf();
    let is_locked = query.get("read").is_some_and(|read| read == "locked");
    let lies = replica.lies(if is_locked { Lie::StaleLockedRead } else { Lie::StaleRead });
    let now = shelf.stock();
    let old = shelf.past.iter().rev().find(|(at, _)| at.elapsed() >= STALE);
    Json(old.filter(|_| lies).map_or(now, |(_, stock)| stock.clone()))
}

/// How old a stale reading is: older than a reading takes on a busy machine.
const STALE: Duration = Duration::from_millis(300);

async fn audit(State(replica): State<Replica>) -> Json<Audit> {
    let mut shelf = replica.shelf();
    let sold = shelf.orders.iter().filter(|order| order.status == OrderStatus::Confirmed);
    let units_sold = sold.map(|order| order.quantity).sum();
    let orders = i64::try_from(shelf.orders.len()).expect("few");
    let Product { supply, stock, version, .. } = *shelf.product();
    Json(Audit {
        supply,
        stock,
        version,
        units_sold,
        units_reserved: 0,
        orders,
        oversold_units: (units_sold - supply).max(0),
        balanced: stock == supply - units_sold,
        duplicate_reads: Vec::new(),
        ..Audit::default()
    })
}

async fn orders(
    State(replica): State<Replica>,
    Query(query): Query<HashMap<String, String>>,
) -> Json<OrderPage> {
    let from: usize = query.get("cursor").map_or(0, |cursor| cursor.parse().expect("a number"));
    let shelf = replica.shelf();
    let orders: Vec<_> = shelf.orders.iter().skip(from).take(1_000).cloned().collect();
    let next = from + orders.len();
    Json(OrderPage { orders, next_cursor: (next < shelf.orders.len()).then(|| next.to_string()) })
}

async fn holds(State(replica): State<Replica>) -> Json<HoldRecord> {
    let shelf = replica.shelf();
    let own = shelf.holds.iter().filter(|(number, _)| *number == replica.number);
    let holds = own.map(|(_, hold)| hold.clone()).collect();
    let (replica, now_ns) = (replica.name(), now_ns());
    Json(HoldRecord { replica, clock: Clock::Host, since_ns: 1, dropped: 0, now_ns, holds })
}

async fn lock_state(State(replica): State<Replica>) -> Json<LockStatus> {
    Json(LockStatus { holders: Vec::new(), waiting: u64::from(replica.lies(Lie::LockIsLeft)) })
}

async fn info(State(replica): State<Replica>) -> Json<serde_json::Value> {
    Json(json!({
        "version": "1", "replica": replica.name(), "strategy": "redis", "guard": "version", "max_batch": 1,
        "store": "postgres", "lease_ms": 500, "allow_reset": false,
    }))
}

fn router(replica: Replica) -> Router {
    Router::new()
        .route("/v1/orders", post(place).get(orders))
        .route("/v1/orders/{id}/cancel", post(cancel))
        .route(
            "/v1/products/{sku}",
            get(async |State(replica): State<Replica>| Json(replica.shelf().product.clone())),
        )
        .route("/v1/products/{sku}/stock", get(stock))
        .route("/v1/admin/products/{sku}", put(create))
        .route("/v1/admin/products/{sku}/restock", post(restock))
        .route("/v1/admin/products/{sku}/audit", get(audit))
        .route(
            "/v1/admin/products/{sku}/adjustments",
            get(async |State(replica): State<Replica>| {
                let adjustments = replica.shelf().adjustments.clone();
                Json(AdjustmentList { adjustments, next_cursor: None })
            }),
        )
        .route("/v1/admin/products/{sku}/lock", get(lock_state))
        .route("/v1/admin/products/{sku}/holds", get(holds))
        .route("/v1/info", get(info))
        .route("/metrics", get(async || ""))
        .with_state(replica)
}

/// Opens a shop that tells this lie; its servers end with the set.
pub(crate) async fn open(lie: Lie) -> (Vec<Client>, JoinSet<()>) {
    let shop = Arc::new(Shop { lie, started: Instant::now(), state: Mutex::default() });
    let mut servers = JoinSet::new();
    let mut clients = Vec::new();
    for number in 0..REPLICAS {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        clients
            .push(Client::new(&format!("http://{}", listener.local_addr().expect("an address")), "secret"));
        let replica = Replica { number, shop: Arc::clone(&shop) };
        servers.spawn(async move { axum::serve(listener, router(replica)).await.expect("it serves") });
    }
    servers.spawn(async move {
        loop {
            sleep(Duration::from_millis(10)).await;
            let mut shelf = shop.state.lock().expect("no holder of it panics");
            if shelf.product.is_some() {
                let stock = shelf.stock();
                shelf.past.push((Instant::now(), stock));
            }
        }
    });
    (clients, servers)
}
