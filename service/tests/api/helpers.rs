//! Replicas to test, and a client for them.

use std::path::Path;
use std::str::FromStr as _;
use std::sync::{Arc, Weak};
use std::time::Duration;

use lab::{Postgres, Server as _};
use order_service::api::{Audit, Order};
use order_service::app::{App, token_generations};
use order_service::config::{Config, Sources, StoreSection};
use order_service::lock::{self, Lock};
use order_service::telemetry::Metrics;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use sqlx::postgres::PgRow;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::STORE;

pub const SKU: &str = "hair-dryer";
pub const TOKEN: &str = "secret";

/// The stores that the suite runs on. Each test program has one, in its `STORE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "each test program has one of them")]
pub enum StoreKind {
    Sqlite,
    Postgres,
}

impl StoreKind {
    /// What the service calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// Replicas that share a store.
pub struct Shop {
    pub replicas: Vec<Replica>,
    store: Store,
}

/// What the replicas share.
enum Store {
    File(TempDir),
    /// A database on a server that the tests share,
    Database(String, #[allow(dead_code, reason = "its drop ends the server")] Arc<Postgres>),
    /// or on one that a test may do anything to.
    Server(Box<Postgres>),
}

/// A replica inside this process, on a port of its own.
pub struct Replica {
    pub url: String,
    /// Where the admin's calls are.
    pub admin_url: String,
    pub http: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl Shop {
    /// One replica under `strategy` with `stock` hair dryers.
    pub async fn open(strategy: &str, stock: i64) -> Self {
        Self::with(1, strategy, stock, &[]).await
    }

    /// Replicas under `strategy` with `stock` hair dryers and further keys of the configuration.
    pub async fn with(replicas: usize, strategy: &str, stock: i64, keys: &[(&str, &str)]) -> Self {
        let store = match STORE {
            StoreKind::Sqlite => Store::File(tempfile::tempdir().expect("a temporary directory")),
            StoreKind::Postgres => {
                let server = server().await;
                Store::Database(create_database(&server).await, server)
            }
        };
        Self::on(store, replicas, strategy, stock, keys).await
    }

    /// Replicas on a database server that the test may kill.
    #[allow(dead_code, reason = "not every store has a server")]
    pub async fn on_a_server_of_its_own(
        replicas: usize,
        strategy: &str,
        stock: i64,
        keys: &[(&str, &str)],
    ) -> Self {
        let server = Postgres::start().await.expect("PostgreSQL starts");
        Self::on_server(server, replicas, strategy, stock, keys).await
    }

    /// Replicas on this server.
    #[allow(dead_code, reason = "not every store has a server")]
    pub async fn on_server(
        server: Postgres,
        replicas: usize,
        strategy: &str,
        stock: i64,
        keys: &[(&str, &str)],
    ) -> Self {
        Self::on(Store::Server(Box::new(server)), replicas, strategy, stock, keys).await
    }

    async fn on(store: Store, replicas: usize, strategy: &str, stock: i64, keys: &[(&str, &str)]) -> Self {
        let mut shop = Self { replicas: Vec::new(), store };
        for _ in 0..replicas {
            shop.add_replica(strategy, keys).await;
        }
        let body = json!({"name": "Hair dryer", "stock": stock});
        let made = shop.replicas[0].admin(Method::PUT, "", Some(body)).await;
        assert_eq!(made.status(), 201);
        shop
    }

    pub async fn add_replica(&mut self, strategy: &str, keys: &[(&str, &str)]) {
        let url = self.url();
        let name = format!("replica-{}", self.replicas.len() + 1);
        let own = [
            ("server.listen", "127.0.0.1:0"),
            ("server.replica", &name),
            ("store.url", &url),
            ("lock.strategy", strategy),
            ("lock.database.lease", "1s"),
            ("admin.token", TOKEN),
            ("admin.allow_reset", "true"),
        ];
        let overrides = own.iter().chain(keys).map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let config = Config::load(&Sources { overrides, ..Sources::default() }).expect("a configuration");
        let app = App::build(&config).await.expect("the replica starts");
        let url = format!("http://{}", app.address());
        let admin_url =
            app.admin_address().map_or_else(|| url.clone(), |address| format!("http://{address}"));
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(app.run(async { drop(stopped.await) }));
        // The client can do TLS, and asks for it although no test does. Whom the system trusts takes long to
        // read.
        rustls::crypto::ring::default_provider().install_default().ok();
        let http = reqwest::Client::builder().tls_certs_only([]).build().expect("a client");
        self.replicas.push(Replica { url, admin_url, http, stop: Some(stop), running });
    }

    /// The store, as the replicas open it.
    pub async fn connect(&self) -> Arc<dyn order_service::store::Store> {
        let section = StoreSection { url: self.url(), ..StoreSection::default() };
        order_service::store::connect(&section).await.expect("the store opens")
    }

    /// The lock of strategy `database`, as a replica has it.
    pub async fn lock(&self) -> Arc<dyn Lock> {
        let overrides = [("store.url", self.url()), ("lock.database.lease", "10s".into())];
        let overrides = overrides.map(|(key, value)| (key.to_owned(), value)).to_vec();
        let config = Config::load(&Sources { overrides, ..Sources::default() }).expect("a configuration");
        let floor = token_generations(&self.connect().await);
        lock::connect(&config, floor, &Metrics::new(config.lock.strategy)).await.expect("the lock connects")
    }

    /// Runs statements on the database itself, past the service.
    pub async fn execute(&self, statements: &str) {
        self.lines(statements).await;
    }

    /// The rows that statements on the database itself come to: their columns with `|` between them.
    pub async fn lines(&self, statements: &str) -> Vec<String> {
        match &self.store {
            Store::File(_) => {
                let options = SqliteConnectOptions::from_str(&self.url()).expect("a URL").foreign_keys(true);
                let options = options.busy_timeout(Duration::from_secs(10));
                let mut connection = options.connect().await.expect("a connection");
                let rows =
                    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).fetch_all(&mut connection).await;
                let text = |row: SqliteRow| {
                    let column = |index| match row.get_unchecked::<Option<String>, _>(index) {
                        Some(text) => text,
                        None => "null".into(),
                    };
                    (0..row.len()).map(column).collect::<Vec<_>>().join("|")
                };
                rows.expect("they can be executed").into_iter().map(text).collect()
            }
            Store::Database(url, _) => query(url, statements).await,
            Store::Server(server) => query(&server.url(), statements).await,
        }
    }

    fn url(&self) -> String {
        match &self.store {
            Store::File(directory) => format!("sqlite://{}", directory.path().join("shop.db").display()),
            Store::Database(url, _) => url.clone(),
            Store::Server(server) => server.url(),
        }
    }

    /// Where the file is.
    #[allow(dead_code, reason = "not every store is a file")]
    pub fn directory(&self) -> &Path {
        match &self.store {
            Store::File(directory) => directory.path(),
            _ => panic!("the store is not a file"),
        }
    }

    /// The server of the test's own.
    #[allow(dead_code, reason = "not every store has a server")]
    pub fn server(&mut self) -> &mut Postgres {
        match &mut self.store {
            Store::Server(server) => server,
            _ => panic!("the server is shared"),
        }
    }

    pub fn replica(&self) -> &Replica {
        &self.replicas[0]
    }

    pub async fn audit(&self) -> Audit {
        let audit = self.replica().admin(Method::GET, "/audit", None).await;
        audit.json().await.expect("an audit")
    }

    pub async fn orders(&self) -> Vec<Order> {
        let page = self.replica().get("/v1/orders?limit=1000").await;
        let page: Value = page.json().await.expect("a page");
        serde_json::from_value(page["orders"].clone()).expect("orders")
    }
}

/// The server that the tests of this program share, for as long as one of them runs.
async fn server() -> Arc<Postgres> {
    static SERVER: tokio::sync::Mutex<Weak<Postgres>> = tokio::sync::Mutex::const_new(Weak::new());
    let mut server = SERVER.lock().await;
    if let Some(running) = server.upgrade() {
        return running;
    }
    let started = Arc::new(Postgres::start().await.expect("PostgreSQL starts"));
    *server = Arc::downgrade(&started);
    started
}

/// What statements on a database of PostgreSQL come to.
async fn query(url: &str, statements: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.expect("a connection");
    let rows = sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).fetch_all(&mut connection).await;
    // The server sends every value as text.
    let text = |row: PgRow| {
        let column = |index| match row.try_get_raw(index).expect("a column").as_str() {
            Ok(text) => text.to_owned(),
            Err(_) => "null".into(),
        };
        (0..row.len()).map(column).collect::<Vec<_>>().join("|")
    };
    rows.expect("they can be executed").into_iter().map(text).collect()
}

/// Makes a database, and answers its address.
async fn create_database(server: &Postgres) -> String {
    let name = format!("shop_{}", uuid::Uuid::new_v4().simple());
    let mut connection = PgConnection::connect(&server.url()).await.expect("a connection");
    let create = AssertSqlSafe(format!("create database {name}"));
    sqlx::raw_sql(create).execute(&mut connection).await.expect("a database");
    connection.close().await.expect("the connection ends");
    server.url_of(&name)
}

impl Replica {
    pub async fn get(&self, path: &str) -> Response {
        self.http.get(format!("{}{path}", self.url)).send().await.expect("an answer")
    }

    pub async fn post(&self, path: &str) -> Response {
        self.http.post(format!("{}{path}", self.url)).send().await.expect("an answer")
    }

    pub async fn order(&self, buyer: &str, quantity: i64) -> Response {
        self.order_with(&json!({"sku": SKU, "quantity": quantity, "buyer": buyer}), None).await
    }

    pub async fn order_with(&self, body: &Value, key: Option<&str>) -> Response {
        let mut request = self.http.post(format!("{}/v1/orders", self.url)).json(body);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        request.send().await.expect("an answer")
    }

    pub async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        self.admin_with(method, path, body, None).await
    }

    pub async fn admin_with(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        key: Option<&str>,
    ) -> Response {
        let url = format!("{}/v1/admin/products/{SKU}{path}", self.admin_url);
        let mut request = self.http.request(method, url).bearer_auth(TOKEN);
        if let Some(body) = body {
            request = request.json(&body);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        request.send().await.expect("an answer")
    }

    pub async fn cancel_with(&self, id: &str, key: Option<&str>) -> Response {
        self.change_order(id, "cancel", key).await
    }

    pub async fn pay_with(&self, id: &str, key: Option<&str>) -> Response {
        self.change_order(id, "pay", key).await
    }

    async fn change_order(&self, id: &str, what: &str, key: Option<&str>) -> Response {
        let mut request = self.http.post(format!("{}/v1/orders/{id}/{what}", self.url));
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        request.send().await.expect("an answer")
    }

    /// Waits until the product's lock is held.
    pub async fn until_locked(&self) {
        for _ in 0..1_000 {
            let state: Value =
                self.admin(Method::GET, "/lock", None).await.json().await.expect("the lock state");
            if state["holders"] != json!([]) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("the lock was not taken");
    }

    /// The value of a metric that has no label but the strategy.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.text().await.expect("metrics");
        let labelled = format!("{name}{{strategy=");
        let line = text.lines().find(|line| line.starts_with(&labelled)).expect("the metric");
        line.rsplit(' ').next().expect("a value").parse().expect("a number")
    }

    /// Has the replica stop, as SIGTERM does; the handle completes when it has.
    pub fn stop(&mut self) -> &mut JoinHandle<()> {
        drop(self.stop.take());
        &mut self.running
    }
}

/// The problem's slug, and what it says of the outcome.
pub async fn problem(response: Response) -> (u16, String, Option<String>) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let id = response.headers()["x-request-id"].to_str().expect("ASCII").to_owned();
    let body: Value = response.json().await.expect("a problem");
    assert_eq!(body["status"], status);
    assert_eq!(body["request_id"], id);
    let slug = body["type"].as_str().and_then(|kind| kind.strip_prefix("/problems/")).expect("a type");
    (status, slug.into(), body["outcome"].as_str().map(Into::into))
}

/// The bodies of answers, counted by status.
pub fn count(responses: &[Response], status: u16) -> usize {
    responses.iter().filter(|response| response.status() == status).count()
}
