//! What a running service says of itself: no secret, in no answer and in no log.

use std::path::PathBuf;
use std::time::Duration;

use deadpool_redis::redis;
use lab::{Etcd, Lab, Postgres, Process, Redis, Server as _, Zookeeper};
use reqwest::Method;
use tokio::process::Command;

const ADMIN_TOKEN: &str = "admin-token-0f1e2d3c4b5a69788796a5b4";
const SERVER_TOKEN: &str = "server-token-0f1e2d3c4b5a69788796a5b4";
const STORE_PASSWORD: &str = "store-password-1234";
const LOCK_PASSWORD: &str = "lock-password-5678";
/// What a client sends that has mistaken the address, or the token.
const WRONG_TOKEN: &str = "wrong-token-0f1e2d3c4b5a69788796a5b4";

const SECRETS: [&str; 5] = [ADMIN_TOKEN, SERVER_TOKEN, STORE_PASSWORD, LOCK_PASSWORD, WRONG_TOKEN];

const TIMEOUT: Duration = Duration::from_secs(20);

const SKU: &str = "hair-dryer";

/// A service, and all that it has said.
struct Service {
    process: Process,
    url: String,
    http: reqwest::Client,
    answers: String,
    log: PathBuf,
}

impl Service {
    async fn start(lab: &Lab, name: &str, keys: &[(&str, &str)]) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut command = Command::new(env!("CARGO_BIN_EXE_order-service"));
        command.current_dir(lab.path()).env("RUST_LOG", "debug");
        let own = [("server.listen", "127.0.0.1:0"), ("lock.wait", "300ms"), ("store.timeout", "500ms")];
        for (key, value) in own.iter().chain(keys) {
            command.env(format!("STOCKLOCK__{}", key.replace('.', "__").to_uppercase()), value);
        }
        let log = lab.file(&format!("{name}.log"));
        let started = Process::start(name, command, log.clone(), "listening on ", TIMEOUT).await;
        let (process, url) = started.expect("the service starts");
        Self { process, url, http: reqwest::Client::new(), answers: String::new(), log }
    }

    /// Remembers the answer, head and body, and returns its status.
    async fn call(&mut self, method: Method, path: &str, token: Option<&str>, body: &str) -> u16 {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let head = format!("{path}: {status} {:?}\n", answer.headers());
        self.answers += &head;
        self.answers += &answer.text().await.expect("a body");
        status
    }

    /// Every kind of call, right and wrong; returns the status of the order.
    async fn exercise(&mut self) -> u16 {
        let product = format!("/v1/admin/products/{SKU}");
        let order = format!(r#"{{"sku": "{SKU}", "quantity": 1, "buyer": "A"}}"#);
        for token in [Some(ADMIN_TOKEN), Some(SERVER_TOKEN), Some(WRONG_TOKEN), None] {
            self.call(Method::PUT, &product, token, r#"{"name": "Hair dryer", "stock": 5}"#).await;
            self.call(Method::POST, &product, token, "").await;
            for read in ["audit", "adjustments", "lock", "holds"] {
                self.call(Method::GET, &format!("{product}/{read}"), token, "").await;
            }
            self.call(Method::GET, "/v1/orders", token, "").await;
            self.call(Method::GET, "/v1/info", token, "").await;
            self.call(Method::POST, "/v1/orders/01a20168-0000-7000-8000-000000000000/cancel", token, "")
                .await;
            self.call(Method::POST, "/v1/orders", token, "{").await;
            self.call(Method::GET, "/nowhere", token, "").await;
        }
        for path in [
            "/livez",
            "/readyz",
            "/metrics",
            "/openapi.json",
            "/v1/products",
            "/v1/products/hair-dryer/stock?read=locked",
        ] {
            self.call(Method::GET, path, None, "").await;
        }
        self.call(Method::POST, "/v1/orders", None, &order).await
    }

    /// Stops, and holds all that was said against the secrets.
    async fn end(self) {
        let Self { process, answers, log, .. } = self;
        process.stop(TIMEOUT).await.expect("the service stops");
        let log = std::fs::read_to_string(log).expect("a log");
        assert!(log.contains("started") && log.contains("stopping"), "{log}");
        assert!(answers.contains("401") && answers.contains("/v1/info: 200"), "{answers}");
        for secret in SECRETS {
            for (what, text) in [("an answer", &answers), ("the log", &log)] {
                let line = text.lines().find(|line| line.contains(secret));
                assert_eq!(line, None, "{secret} is in {what}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_in_an_answer_or_in_the_log() {
    let lab = Lab::new().expect("a directory");
    let mut postgres = Postgres::start().await.expect("PostgreSQL starts");
    // Nobody is asked for it there, so any will do.
    let store = postgres.url().replacen('@', &format!(":{STORE_PASSWORD}@"), 1);
    let (_, authority) = store.split_once("://").expect("a URL");
    assert!(authority.contains(&format!(":{STORE_PASSWORD}@")), "the store has a password");
    let tokens = [("admin.token", ADMIN_TOKEN), ("server.token", SERVER_TOKEN), ("store.url", &store)];

    let mut redis = Redis::start().await.expect("Redis starts");
    let client = redis::Client::open(redis.url()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("requirepass").arg(LOCK_PASSWORD);
    set.query_async::<()>(&mut connection).await.expect("a password");
    let url = redis.url().replacen("://", &format!("://:{LOCK_PASSWORD}@"), 1);
    let keys = [("lock.strategy", "redis"), ("lock.redis.url", url.as_str())];
    let mut service = Service::start(&lab, "redis", &[&tokens[..], &keys].concat()).await;
    assert_eq!(service.exercise().await, 201);
    redis.kill().await.expect("Redis ends");
    assert_eq!(service.exercise().await, 503);
    service.end().await;

    let mut etcd = Etcd::start().await.expect("etcd starts");
    for (path, body) in [
        ("user/add", r#"{"name": "root", "password": "root"}"#.to_owned()),
        ("role/add", r#"{"name": "root"}"#.to_owned()),
        ("user/grant", r#"{"user": "root", "role": "root"}"#.to_owned()),
        ("user/add", format!(r#"{{"name": "shop", "password": "{LOCK_PASSWORD}"}}"#)),
        ("user/grant", r#"{"user": "shop", "role": "root"}"#.to_owned()),
        ("enable", "{}".to_owned()),
    ] {
        etcd.call(&format!("/v3/auth/{path}"), &body).await.expect("an answer");
    }
    let address = format!("http://{}", etcd.address());
    let keys = [
        ("lock.strategy", "etcd"),
        ("lock.etcd.url", address.as_str()),
        ("lock.etcd.user", "shop"),
        ("lock.etcd.password", LOCK_PASSWORD),
    ];
    let mut service = Service::start(&lab, "etcd", &[&tokens[..], &keys].concat()).await;
    assert_eq!(service.exercise().await, 201);
    etcd.kill().await.expect("etcd ends");
    assert_eq!(service.exercise().await, 503);
    service.end().await;

    let zookeeper = Zookeeper::start().await.expect("ZooKeeper starts");
    let auth = format!("shop:{LOCK_PASSWORD}");
    let keys = [
        ("lock.strategy", "zookeeper"),
        ("lock.zookeeper.servers", &zookeeper.address()),
        ("lock.zookeeper.auth", auth.as_str()),
    ];
    let mut service = Service::start(&lab, "zookeeper", &[&tokens[..], &keys].concat()).await;
    assert_eq!(service.exercise().await, 201);
    postgres.kill().await.expect("PostgreSQL ends");
    assert_eq!(service.exercise().await, 503);
    service.end().await;
}
