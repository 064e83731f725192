//! PostgreSQL as providers run it: with TLS, with roles that may do little, behind a pool, with a standby,
//! and over networks that forget connections.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use lab::{Pgbouncer, Postgres, PostgresTls, Proxy, Server as _};
use order_service::app::{App, StartError};
use order_service::config::{Config, Sources};
use order_service::store;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const SKU: &str = "hair-dryer";

const ADMIN_TOKEN: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// What the tables' owner grants to a role that only sells.
const GRANTS: &str = "
    create role seller login;
    grant select, insert, update, delete on all tables in schema public to seller";

fn config(url: &str, keys: &[(&str, &str)]) -> Config {
    let own = [("server.listen", "127.0.0.1:0"), ("store.url", url), ("lock.database.lease", "1s")];
    let overrides = own.iter().chain(keys).map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let mut config = Config::load(&Sources { overrides, ..Sources::default() }).expect("a configuration");
    config.catalog = vec![
        serde_json::from_value(json!({"sku": SKU, "name": "Hair dryer", "stock": 1000})).expect("a product"),
    ];
    config
}

/// Why a replica does not start.
async fn refused(url: &str, keys: &[(&str, &str)]) -> String {
    match App::build(&config(url, keys)).await {
        Ok(_) => panic!("it starts"),
        Err(error) => error.to_string(),
    }
}

/// A replica that runs until it is dropped.
struct Replica {
    url: String,
    http: reqwest::Client,
    stop: Arc<Notify>,
    running: Option<JoinHandle<()>>,
}

impl Replica {
    async fn start(url: &str, keys: &[(&str, &str)]) -> Self {
        Self::try_start(url, keys).await.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn try_start(url: &str, keys: &[(&str, &str)]) -> Result<Self, StartError> {
        let app = App::build(&config(url, keys)).await?;
        let url = format!("http://{}", app.address());
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let running = Some(tokio::spawn(app.run(async move { stopped.notified().await })));
        // The client can do TLS, and asks for it although no test does.
        rustls::crypto::ring::default_provider().install_default().ok();
        Ok(Self { url, http: reqwest::Client::new(), stop, running })
    }

    async fn order(&self) -> u16 {
        self.try_order().await.map_or_else(|(status, _)| status, |()| 201)
    }

    /// Orders; an error says what became of it.
    async fn try_order(&self) -> Result<(), (u16, String)> {
        let body = json!({"sku": SKU, "quantity": 1, "buyer": "A"});
        let sent = self.http.post(format!("{}/v1/orders", self.url)).json(&body).send();
        let answer = sent.await.expect("an answer");
        match answer.status().as_u16() {
            201 => Ok(()),
            status => Err((status, answer.text().await.expect("a problem"))),
        }
    }

    async fn restock(&self) -> u16 {
        let body = json!({"quantity": 1, "reason": "delivery"});
        let url = format!("{}/v1/admin/products/{SKU}/restock", self.url);
        let sent = self.http.post(url).bearer_auth(ADMIN_TOKEN).json(&body).send();
        sent.await.expect("an answer").status().as_u16()
    }

    /// How `/readyz` answers, and what it says.
    async fn ready(&self) -> (u16, String) {
        let answer = self.http.get(format!("{}/readyz", self.url)).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.expect("JSON");
        (status, body["detail"].as_str().unwrap_or_default().to_owned())
    }

    /// Asks whether it is ready until it is not, and returns why.
    async fn until_unready(&self) -> String {
        for _ in 0..200 {
            if let (503, why) = self.ready().await {
                return why;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("it goes on to be ready");
    }

    /// Orders until one is taken.
    async fn until_an_order_is_taken(&self) -> Duration {
        let asked = Instant::now();
        while self.order().await != 201 {
            assert!(asked.elapsed() < Duration::from_secs(60), "no order is taken any more");
            sleep(Duration::from_millis(20)).await;
        }
        asked.elapsed()
    }

    async fn stop(mut self) {
        self.stop.notify_one();
        self.running.take().expect("it runs").await.expect("it ends");
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_change_no_tables_sells_when_another_has_migrated() {
    let server = Postgres::start().await.expect("PostgreSQL starts");
    let owner = server.url();
    let seller = owner.replace("stocklock@", "seller@");
    server.query("create role seller login").await.expect("a role");
    let unmigrated = refused(&seller, &[]).await;
    assert!(unmigrated.contains("order-service migrate"), "{unmigrated}");
    let left = refused(&owner, &[("store.migrate", "false")]).await;
    assert!(left.contains("13 migrations") && left.contains("order-service migrate"), "{left}");
    assert_eq!(store::migrate(&config(&owner, &[]).store).await.expect("it migrates"), 13);
    assert_eq!(store::migrate(&config(&owner, &[]).store).await.expect("nothing is left"), 0);

    let denied = refused(&seller, &[]).await;
    assert!(denied.contains("permission denied for table _sqlx_migrations"), "{denied}");
    server.query("drop role seller").await.expect("no role");
    server.query(GRANTS).await.expect("the role may sell");
    for strategy in ["database", "row", "optimistic"] {
        let replica =
            Replica::start(&seller, &[("lock.strategy", strategy), ("store.migrate", "false")]).await;
        assert_eq!(replica.order().await, 201, "{strategy}");
        assert_eq!(replica.ready().await.0, 200, "{strategy}");
        replica.stop().await;
    }

    let replica = Replica::start(&seller, &[]).await;
    server.query("revoke insert on orders from seller").await.expect("it is revoked");
    let why = replica.until_unready().await;
    assert!(why.contains("permission denied for table orders"), "{why}");
    let denied = refused(&seller, &[]).await;
    assert!(denied.contains("seller lacks insert on orders"), "{denied}");
    server.query("grant insert on orders to seller; revoke delete on locks from seller").await.expect("done");
    let denied = refused(&seller, &[]).await;
    assert!(denied.contains("seller lacks delete on locks"), "{denied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_has_to_wait_for_a_backup_stops_nobody() {
    let server = Postgres::start().await.expect("PostgreSQL starts");
    let replica = Replica::start(&server.url(), &[("admin.token", ADMIN_TOKEN)]).await;
    let earlier = "
        create index adjustments_by_version on stock_adjustments (sku, version);
        drop index adjustments_in_order;
        delete from _sqlx_migrations where version = 11";
    server.query(earlier).await.expect("the last migration is undone");
    // As a backup does, which has read the table and is not done.
    let mut backup = PgConnection::connect(&server.url()).await.expect("a connection");
    for statement in ["begin", "select from stock_adjustments"] {
        sqlx::query(statement).execute(&mut backup).await.expect("it reads");
    }
    let ours = config(&server.url(), &[]);
    let is_done = Cell::new(false);
    let migrating = async {
        let migrated = store::migrate(&ours.store).await;
        is_done.set(true);
        migrated
    };
    let restocking = async {
        // Until it has waited, and given up, once at least.
        let begun = Instant::now();
        let mut restocks = 0;
        while begun.elapsed() < Duration::from_millis(2500) {
            assert_eq!(replica.restock().await, 201);
            restocks += 1;
        }
        assert!(restocks > 10 && !is_done.get(), "{restocks} restocks");
        sqlx::query("commit").execute(&mut backup).await.expect("the backup ends");
    };
    let (migrated, ()) = tokio::join!(migrating, restocking);
    assert_eq!(migrated.expect("it migrates"), 1);
    assert_eq!(replica.restock().await, 201);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_pgbouncer_a_session_is_needed_and_enough() {
    let server = Postgres::start().await.expect("PostgreSQL starts");
    let pool = Pgbouncer::start(&server, "session").await.expect("PgBouncer starts");
    for strategy in ["database", "row"] {
        let first = Replica::start(&pool.url(), &[("lock.strategy", strategy)]).await;
        let second = Replica::start(&pool.url(), &[("lock.strategy", strategy)]).await;
        for replica in [&first, &second, &first] {
            assert_eq!(replica.order().await, 201, "{strategy}");
        }
        first.stop().await;
        second.stop().await;
    }
    for mode in ["transaction", "statement"] {
        let pool = Pgbouncer::start(&server, mode).await.expect("PgBouncer starts");
        let why = refused(&pool.url(), &[]).await;
        assert!(why.contains("PgBouncer") && why.contains("pool_mode = session"), "{mode}: {why}");
        let why = store::migrate(&config(&pool.url(), &[]).store).await.expect_err(mode).to_string();
        assert!(why.contains("pool_mode = session"), "{mode}: {why}");
    }
    // What a client sets in its URL, PgBouncer refuses at once.
    let url = format!("{}?options=-c%20geqo%3Doff", pool.url());
    let why = refused(&url, &[]).await;
    assert!(why.contains("ignore_startup_parameters"), "{why}");
}

/// An authority, and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// A certificate for `name`, and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_insists_on_tls_is_spoken_to_when_it_proves_who_it_is() {
    let (authority, stranger) = (Authority::new("Shop authority"), Authority::new("Stranger"));
    let (certificate, key) = authority.sign("localhost");
    let tls = PostgresTls { certificate, key, client_authority: None };
    let server = Postgres::start_with_tls(&tls).await.expect("PostgreSQL starts");
    let files = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let file = files.path().join(name);
        std::fs::write(&file, text).expect("it is written");
        file.display().to_string()
    };
    let (ours, others) = (write("ours.pem", &authority.0.pem()), write("others.pem", &stranger.0.pem()));
    let trusted = format!("sslmode=verify-full&sslrootcert={ours}");

    let replica = Replica::start(&server.tls_url("localhost", &trusted), &[]).await;
    assert_eq!(replica.order().await, 201);
    let encrypted = server.query(
        "select count(*) > 0 and bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) \
         where usename = 'shop'",
    );
    assert_eq!(encrypted.await.expect("an answer"), "t");
    replica.stop().await;

    for (host, parameters, reason) in [
        ("localhost", format!("sslmode=verify-full&sslrootcert={others}"), "UnknownIssuer"),
        // A server that is not on this machine is verified without being asked to; this one has a name that
        // its certificate does not have.
        ("127.0.0.1", trusted.clone(), "not valid for name"),
        ("localhost", "sslmode=disable".to_owned(), "no encryption"),
    ] {
        let why = refused(&server.tls_url(host, &parameters), &[]).await;
        assert!(why.contains(reason) && !why.contains("dryer@"), "{host}, {parameters}: {why}");
    }
    // As it is said, and not more: encrypted, to whomever.
    Replica::start(&server.tls_url("127.0.0.1", "sslmode=require"), &[]).await.stop().await;

    let (certificate, key) = authority.sign("localhost");
    let tls = PostgresTls { certificate, key, client_authority: Some(authority.0.pem()) };
    let server = Postgres::start_with_tls(&tls).await.expect("PostgreSQL starts");
    let why = refused(&server.tls_url("localhost", &trusted), &[]).await;
    assert!(why.contains("client certificate"), "{why}");
    let (certificate, key) = authority.sign("shop");
    let (certificate, key) = (write("shop.pem", &certificate), write("shop.key", &key));
    let parameters = format!("{trusted}&sslcert={certificate}&sslkey={key}");
    Replica::start(&server.tls_url("localhost", &parameters), &[]).await.stop().await;

    // The password from a file, which is read again for each connection.
    let secret = write("password", "wrong\n");
    let url = server.tls_url("localhost", &parameters).replace(":hair%20dryer@", "@");
    let why = refused(&url, &[("store.password_file", &secret)]).await;
    assert!(why.contains("password authentication failed"), "{why}");
    write("password", "hair dryer\n");
    let replica = Replica::start(&url, &[("store.password_file", &secret)]).await;
    server.query("alter role shop password 'another'").await.expect("it is changed");
    write("password", "another\n");
    server.terminate_backends().await.expect("they end");
    replica.until_an_order_is_taken().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_primary_fails_the_standby_is_found_and_a_standby_is_not_sold_from() {
    let mut primary = Postgres::start().await.expect("PostgreSQL starts");
    let standby = primary.standby().await.expect("the standby starts");
    let why = refused(&standby.url(), &[]).await;
    assert!(why.contains("standby"), "{why}");
    primary.query("alter system set synchronous_standby_names = '*'").await.expect("a commit is on both");
    primary.query("select pg_reload_conf()").await.expect("it is read");
    let both = format!("postgres://stocklock@{},{}/postgres", standby.address(), primary.address());
    for strategy in ["database", "optimistic"] {
        Replica::start(&both, &[("lock.strategy", strategy)]).await.stop().await;
    }
    let keys = [("store.timeout", "1s"), ("server.request_timeout", "2s")];
    let replica = Replica::start(&both, &keys).await;
    for _ in 0..5 {
        assert_eq!(replica.order().await, 201);
    }
    assert_eq!(replica.ready().await.0, 200);
    primary.kill().await.expect("it is killed");
    let why = replica.until_unready().await;
    assert!(why.contains("standby"), "{why}");
    standby.promote().await.expect("it is promoted");
    let took = replica.until_an_order_is_taken().await;
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    assert_eq!(replica.ready().await.0, 200);
    let sold = standby.query("select count(*) from orders").await.expect("an answer");
    assert_eq!(sold, "6");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_die_without_a_sign_cost_one_slow_order_and_not_the_pool() {
    for strategy in ["database", "row", "optimistic"] {
        let server = Postgres::start().await.expect("PostgreSQL starts");
        let proxy = Proxy::start(&server.address()).await.expect("the proxy starts");
        let url = format!("postgres://stocklock@{}/postgres", proxy.address());
        // A machine that has much else to do may take its time, and each dead connection half a second.
        let keys = [("lock.strategy", strategy), ("lock.wait", "10s"), ("server.request_timeout", "20s")];
        let replica = Replica::start(&url, &keys).await;
        let many = async |count| {
            let all = futures_util::future::join_all((0..count).map(|_| replica.try_order())).await;
            all.into_iter().collect::<Result<Vec<_>, _>>().map(drop)
        };
        // As many connections as orders take at the same time.
        many(50).await.expect("all are taken");
        for round in 0..3 {
            // What is under way when a connection dies is as slow as the answer that never comes.
            while server.query("select count(*) from locks").await.expect("an answer") != "0" {
                sleep(Duration::from_millis(5)).await;
            }
            sleep(Duration::from_millis(50)).await;
            proxy.strand();
            for orders in [10, 50] {
                let taken = many(orders).await;
                taken.unwrap_or_else(|refused| panic!("{strategy}, round {round}: {refused:?}"));
            }
            assert_eq!(replica.ready().await.0, 200, "{strategy}, round {round}");
        }
        replica.stop().await;
    }
}
