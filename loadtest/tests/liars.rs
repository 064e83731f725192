//! The verdict cannot be lied to: a small shop in memory keeps the contract except for one lie, and is caught by the
//! check that is there for it, every time. The same shop without a lie is correct, every time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use futures_util::future::join_all;
use loadtest::client::Client;
use loadtest::compare::{self, Faults};
use loadtest::evidence::Broken;
use loadtest::report::RunReport;
use loadtest::scenario::{Amount, Scenario};
use loadtest::verdict::{CheckName, Status, Verdict};
use order_service::api::{
    Adjustment, AdjustmentList, Audit, Clock, HoldRecord, IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED, LockCensus,
    LockEvidence, LockHold, NewOrder, Order, OrderPage, OrderStatus, Product, PutProduct, Restock, Stock,
};
use order_service::holds::now_ns;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// How often each shop is judged.
const TIMES: usize = 10;

/// How many kinds of lies are tried at a time.
const AT_ONCE: usize = 3;

/// How many replicas a shop has.
const REPLICAS: usize = 3;

/// What a shop lies about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    /// All holds have the same fencing token.
    ConstantToken,
    /// The count of tokens began anew in the middle.
    TokensBeginAnew,
    /// An order is made, its answer lost, and with it its key.
    KeyIsLost,
    /// An answer is lost, and all else is as it should be.
    AnswerIsLost,
    /// A refusal is an order all the same, a little later.
    RefusalCommits,
    /// Answers differ from what is stored.
    AnswerDiffers,
    /// Two replicas have the lock at the same time.
    HoldsOverlap,
    /// One unit more is sold than there is.
    OneTooMany,
    /// An order that was confirmed is not kept.
    OrderIsLost,
    /// An order is kept that nobody placed.
    OrderIsInvented,
    /// The last units are said to be sold.
    FalseSoldOut,
    /// The units of cancelled orders do not come back.
    UnitsAreKept,
    /// An order comes before one that was confirmed before it was sent.
    OrdersSwap,
    /// Reads under the shared lock are of some time ago.
    StaleLockedRead,
    /// So are plain ones.
    StaleRead,
    /// Of two that are sent at the same time with one key, both are made.
    TwinsBuyTwice,
    /// A repetition is answered with another order.
    ReplayIsAnother,
    /// A restock is done twice.
    RestockTwice,
    /// A restock that was done is not kept.
    RestockIsLost,
    /// The lock is left behind.
    LockIsLeft,
    /// Hardly anything is sold after a fault.
    NeverRecovers,
    /// An answer never comes.
    NoAnswer,
}

/// The shop.
struct Shop {
    lie: Lie,
    started: Instant,
    state: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    product: Option<Product>,
    orders: Vec<Order>,
    adjustments: Vec<Adjustment>,
    /// Orders by their idempotency keys.
    keys: HashMap<String, Uuid>,
    holds: Vec<(usize, LockHold)>,
    token: i64,
    /// How many orders have come.
    asked: u64,
    /// A place in the history that was left out, and when: for an order that comes later.
    gap: Option<(Order, u64)>,
    /// What the stock was, from time to time.
    past: Vec<(Instant, Stock)>,
    has_lied: bool,
}

/// One replica of it.
#[derive(Clone)]
struct Replica {
    number: usize,
    shop: Arc<Shop>,
}

impl Replica {
    fn name(&self) -> String {
        format!("replica-{}", self.number + 1)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shop.state.lock().expect("nobody panics")
    }

    fn lies(&self, lie: Lie) -> bool {
        self.shop.lie == lie
    }
}

impl Shelf {
    fn product(&mut self) -> &mut Product {
        self.product.as_mut().expect("it was made")
    }

    /// A hold of the lock by a replica, from now to now.
    fn hold(&mut self, replica: &Replica, version: Option<i64>) -> i64 {
        self.token += 1;
        if replica.lies(Lie::TokensBeginAnew) && self.token == 60 {
            self.token = 1;
        }
        let token = if replica.lies(Lie::ConstantToken) { 7 } else { self.token };
        let mut acquired_ns = now_ns();
        if replica.lies(Lie::HoldsOverlap)
            && self.token % 40 == 0
            && let Some((number, last)) = self.holds.last()
            && *number != replica.number
        {
            acquired_ns = last.acquired_ns + 1;
        }
        let hold = LockHold {
            sku: self.product().sku.clone(),
            fencing_token: Some(token),
            asked_ns: acquired_ns,
            acquired_ns,
            released_ns: Some(now_ns()),
            written: version.map(|version| [version, version]).into_iter().collect(),
            stale: 0,
            lost: false,
        };
        self.holds.push((replica.number, hold));
        token
    }

    fn sell(&mut self, replica: &Replica, request: &NewOrder, units: i64) -> Order {
        let (before, version) = (self.product().stock, self.product().version + 1);
        let token = self.hold(replica, Some(version));
        let order = Order {
            id: Uuid::now_v7(),
            sku: request.sku.clone(),
            buyer: request.buyer.clone(),
            quantity: request.quantity,
            status: OrderStatus::Confirmed,
            stock_before: before,
            stock_after: before - units,
            version,
            lock: LockEvidence { strategy: "redis".into(), fencing_token: Some(token) },
            replica: replica.name(),
            created_at: jiff::Timestamp::now(),
        };
        (self.product().stock, self.product().version) = (before - units, version);
        self.orders.push(order.clone());
        order
    }

    fn adjust(&mut self, delta: i64, reason: String) -> Adjustment {
        let version = self.product().version + 1;
        (self.product().stock, self.product().version) = (self.product().stock + delta, version);
        let adjustment = Adjustment {
            id: Uuid::now_v7(),
            sku: self.product().sku.clone(),
            delta,
            reason,
            version,
            created_at: jiff::Timestamp::now(),
        };
        self.adjustments.push(adjustment.clone());
        adjustment
    }

    fn stock(&mut self) -> Stock {
        let Product { sku, stock, version, .. } = self.product().clone();
        Stock { sku, stock, version, as_of: jiff::Timestamp::now() }
    }
}

fn problem(status: StatusCode, slug: &str, outcome: &str, more: serde_json::Value) -> Response {
    let mut body = json!({
        "type": format!("/problems/{slug}"), "title": slug, "status": status.as_u16(), "detail": slug,
        "request_id": "1", "outcome": outcome,
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
        return problem(StatusCode::SERVICE_UNAVAILABLE, "lock-timeout", "not_executed", json!({}));
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
            return Some(problem(StatusCode::CONFLICT, "insufficient-stock", "not_executed", more));
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
        return Some(problem(StatusCode::SERVICE_UNAVAILABLE, "lock-timeout", "not_executed", json!({})));
    }
    if replica.lies(Lie::NoAnswer) && shelf.asked >= 50 && !shelf.has_lied {
        shelf.has_lied = true;
        return None;
    }
    if replica.lies(Lie::OrdersSwap) {
        if let Some((gap, since)) = shelf.gap.clone()
            && came > since + 200_000_000
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
        return problem(StatusCode::NOT_FOUND, "no-such-order", "not_executed", json!({}));
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

async fn make(
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

async fn look(State(replica): State<Replica>, Query(query): Query<HashMap<String, String>>) -> Json<Stock> {
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
        orders,
        oversold_units: (units_sold - supply).max(0),
        balanced: stock == supply - units_sold,
        duplicate_reads: Vec::new(),
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

async fn census(State(replica): State<Replica>) -> Json<LockCensus> {
    Json(LockCensus { holders: Vec::new(), waiting: u64::from(replica.lies(Lie::LockIsLeft)) })
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
        .route("/v1/products/{sku}/stock", get(look))
        .route("/v1/admin/products/{sku}", put(make))
        .route("/v1/admin/products/{sku}/restock", post(restock))
        .route("/v1/admin/products/{sku}/audit", get(audit))
        .route(
            "/v1/admin/products/{sku}/adjustments",
            get(async |State(replica): State<Replica>| {
                Json(AdjustmentList { adjustments: replica.shelf().adjustments.clone() })
            }),
        )
        .route("/v1/admin/products/{sku}/lock", get(census))
        .route("/v1/admin/products/{sku}/holds", get(holds))
        .route("/v1/info", get(info))
        .route("/metrics", get(async || ""))
        .with_state(replica)
}

/// Opens a shop that tells this lie; its servers end with the set.
async fn open(lie: Lie) -> (Vec<Client>, JoinSet<()>) {
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
            let mut shelf = shop.state.lock().expect("nobody panics");
            if shelf.product.is_some() {
                let stock = shelf.stock();
                shelf.past.push((Instant::now(), stock));
            }
        }
    });
    (clients, servers)
}

fn fault(from_ms: u64, until_ms: u64) -> Broken {
    let ns = |ms: u64| ms * 1_000_000;
    Broken { what: "a fault".into(), from: ns(from_ms), until: Some(ns(until_ms)), costs_leases: true }
}

/// Judges a shop that tells this lie.
async fn judge(lie: Lie) -> RunReport {
    let (clients, _servers) = open(lie).await;
    let sold_out = !matches!(lie, Lie::UnitsAreKept | Lie::RestockTwice | Lie::RestockIsLost);
    let scenario = Scenario {
        buyers: 16,
        amount: Amount::Orders(600),
        stock: if sold_out { 400 } else { 10_000 },
        replays: 0.1,
        twins: 0.1,
        looks: 0.2,
        cancels: if sold_out { 0.0 } else { 0.1 },
        restocks: if sold_out { 0.0 } else { 0.1 },
        patience: Duration::from_secs(2),
        ..Scenario::default()
    };
    let (scenario, faults) = match lie {
        Lie::NeverRecovers => {
            let scenario =
                Scenario { amount: Amount::For(Duration::from_secs(12)), stock: 1_000_000, ..scenario };
            (scenario, Faults::Declared(vec![fault(100, 600)]))
        }
        // Something was broken, at another time.
        Lie::HoldsOverlap => (scenario, Faults::Declared(vec![fault(1, 2)])),
        Lie::KeyIsLost | Lie::AnswerIsLost => (scenario, Faults::Declared(vec![fault(0, 10_000)])),
        _ => (scenario, Faults::None),
    };
    // Long enough for leases of half a second, and a second more, to end before holds overlap; for an answer to arrive before
    // the order is sent that takes its place; and for what was read of some time ago to be older than the reading took.
    if matches!(lie, Lie::HoldsOverlap | Lie::OrdersSwap | Lie::StaleLockedRead | Lie::StaleRead) {
        let scenario = Scenario { rate: Some(150.0), ..scenario };
        return compare::run(&clients, &scenario, &Arc::default(), faults).await.expect("a run");
    }
    compare::run(&clients, &scenario, &Arc::default(), faults).await.expect("a run")
}

/// Judges many times at once.
async fn judge_often(lie: Lie) -> Vec<RunReport> {
    let mut runs = JoinSet::new();
    for _ in 0..TIMES {
        runs.spawn(judge(lie));
    }
    runs.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_shop_is_correct_every_time() {
    for lie in [Lie::None, Lie::AnswerIsLost] {
        for run in judge_often(lie).await {
            let wrong: Vec<_> = run
                .checks
                .iter()
                .filter(|check| matches!(check.status, Status::Fail | Status::Unknown))
                .collect();
            assert_eq!((run.verdict, wrong), (Verdict::Correct, Vec::new()), "{lie:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_that_lies_is_caught_every_time() {
    let lies = [
        (Lie::ConstantToken, CheckName::TokensIncrease),
        (Lie::TokensBeginAnew, CheckName::TokensIncrease),
        (Lie::KeyIsLost, CheckName::OncePerKey),
        (Lie::TwinsBuyTwice, CheckName::OncePerKey),
        (Lie::ReplayIsAnother, CheckName::OncePerKey),
        (Lie::RefusalCommits, CheckName::NothingRefusedWasSold),
        (Lie::AnswerDiffers, CheckName::AnswersAsStored),
        (Lie::HoldsOverlap, CheckName::NoOverlappingHolds),
        (Lie::OneTooMany, CheckName::NotOversold),
        (Lie::OrderIsLost, CheckName::NothingLost),
        (Lie::OrderIsInvented, CheckName::NothingInvented),
        (Lie::FalseSoldOut, CheckName::NoFalseSoldOut),
        (Lie::UnitsAreKept, CheckName::Balanced),
        (Lie::OrdersSwap, CheckName::Linearizable),
        (Lie::StaleLockedRead, CheckName::Linearizable),
        (Lie::StaleRead, CheckName::Linearizable),
        (Lie::RestockTwice, CheckName::AdjustmentsKept),
        (Lie::RestockIsLost, CheckName::AdjustmentsKept),
        (Lie::LockIsLeft, CheckName::AllAnswered),
        (Lie::NoAnswer, CheckName::AllAnswered),
        (Lie::NeverRecovers, CheckName::Available),
    ];
    for some in lies.chunks(AT_ONCE) {
        join_all(some.iter().map(|(lie, check)| assert_caught(*lie, *check))).await;
    }
}

async fn assert_caught(lie: Lie, check: CheckName) {
    let runs = judge_often(lie).await;
    let caught = runs.iter().filter(|run| run.failed(check).is_some()).count();
    let failed: Vec<_> = runs[0].checks.iter().filter(|check| check.status == Status::Fail).collect();
    assert_eq!(caught, TIMES, "{lie:?} was to be caught by {check}; {failed:#?}");
    assert!(runs.iter().all(|run| run.verdict == Verdict::Violated), "{lie:?}");
}
