//! The backends under test, and ways to take part in them.

use std::sync::Arc;
use std::time::Duration;

use lab::{Direction, Postgres, Proxy, Redis, Server, ServerKind, Servers, Setup};
use order_service::app::{App, token_generations};
use order_service::config::{CatalogEntry, Config, Scope, Sources, StoreSection, StrategyName};
use order_service::lock::{self, Lock, Mode};
use order_service::store::{self, Store};
use order_service::telemetry::Metrics;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// What is locked.
pub const KEY: &str = "hair-dryer";

/// Redis servers of which a majority has the lock.
pub const SEVERAL_REDIS: &str = "redis (5 servers)";

/// Of all leases and sessions.
pub const LEASE: Duration = Duration::from_secs(1);

/// The variable that names the only strategy to be tried, while a lock is written; all without.
const ONLY: &str = "STOCKLOCK_CONTRACT_ONLY";

/// A backend, and a way to take part in it.
pub struct Backend {
    pub name: String,
    /// The store's.
    pub url: String,
    pub store: Arc<dyn Store>,
    /// The server of the locks, or that of the store if the locks are there; none, where they are in a file
    /// or in a process.
    pub servers: Servers,
    strategy: StrategyName,
    /// What a participant is configured with beside.
    more_keys: Vec<(String, String)>,
    /// Of `local`, which promises nothing between processes: one lock, shared by all participants.
    shared: Option<Arc<dyn Lock>>,
    _directory: TempDir,
}

impl Backend {
    /// The backend of a strategy, in the words of [`names`](Self::names): `redis`, `redis (5 servers)`,
    /// `database on PostgreSQL`.
    pub async fn new(name: &str) -> Self {
        let (strategy, place) = name.split_once(" on ").unwrap_or((name, "SQLite"));
        let (strategy, redis_servers) = match strategy.strip_suffix(" servers)") {
            Some(several) => several.split_once(" (").expect("a number of servers"),
            None => (strategy, "1"),
        };
        let setup = Setup { redis_servers: redis_servers.parse().expect("a number"), ..Setup::default() };
        let strategy: StrategyName = strategy.parse().expect("a strategy");
        let kind = match strategy.server() {
            Some(server) => Some(server.kind.parse().expect("a server that the laboratory has")),
            None => (place != "SQLite").then_some(ServerKind::Postgres),
        };
        let servers = Servers::start(kind, setup).await.expect("the server starts");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let url = match servers.find::<Postgres>() {
            Some(postgres) => postgres.url(),
            None => format!("sqlite://{}", directory.path().join("locks.db").display()),
        };
        let section = StoreSection { url: url.clone(), ..StoreSection::default() };
        let store = store::connect(&section).await.expect("the store opens");
        // For whoever wants to know which were tried (`-- --nocapture`).
        println!("backend: {name}");
        let name = name.to_owned();
        let (shared, more_keys, _directory) = (None, Vec::new(), directory);
        let mut backend = Self { name, url, store, servers, strategy, more_keys, shared, _directory };
        if strategy.scope() == Scope::Process {
            backend.shared = Some(backend.connect(&backend.keys()).await);
        }
        backend
    }

    /// The lock in a Redis that the laboratory does not start as a backend, with what it takes to reach it.
    pub async fn of_redis(name: &str, keys: &[(&str, &str)]) -> Self {
        Self::elsewhere(StrategyName::Redis, name, keys).await
    }

    /// The lock of a strategy on a server that the laboratory does not start as a backend, with what it takes
    /// to reach it.
    pub async fn elsewhere(strategy: StrategyName, name: &str, keys: &[(&str, &str)]) -> Self {
        let mut backend = Self::new("none").await;
        let lease = format!("{}ms", LEASE.as_millis());
        let lease = strategy.lease_key().map(|key| (key, lease.as_str()));
        let own = [("lock.strategy", strategy.as_str())].into_iter().chain(lease);
        let keys = own.chain(keys.iter().copied());
        backend.more_keys = keys.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        backend.name = name.to_owned();
        backend.strategy = strategy;
        backend
    }

    /// The backends whose locks keep out what is in `scopes`; every strategy is asked. Locks without a server
    /// of their own are on each store.
    fn names(scopes: &[Scope]) -> Vec<String> {
        let only = std::env::var(ONLY).ok();
        let is_wanted = |strategy: &StrategyName| {
            scopes.contains(&strategy.scope()) && only.as_ref().is_none_or(|only| only == strategy.as_str())
        };
        let in_scope = StrategyName::ALL.into_iter().filter(is_wanted);
        let names = in_scope.flat_map(|strategy| match (strategy.scope(), strategy.server()) {
            (Scope::Everywhere, None) => {
                ["SQLite", "PostgreSQL"].map(|store| format!("{strategy} on {store}")).to_vec()
            }
            // One server, or the majority of several.
            _ if strategy == StrategyName::Redis => vec!["redis".into(), SEVERAL_REDIS.into()],
            _ => vec![strategy.to_string()],
        });
        names.collect()
    }

    async fn start(names: Vec<String>) -> Vec<Self> {
        let mut started = Vec::new();
        for name in names {
            started.push(Self::new(&name).await);
        }
        started
    }

    /// All that must keep the contract.
    pub async fn all() -> Vec<Self> {
        Self::start(Self::names(&[Scope::Process, Scope::Everywhere])).await
    }

    /// All that keep it between processes.
    pub async fn between_processes() -> Vec<Self> {
        Self::start(Self::names(&[Scope::Everywhere])).await
    }

    /// All that are servers, which can be out of reach.
    pub async fn over_the_network() -> Vec<Self> {
        let names = Self::names(&[Scope::Everywhere]).into_iter();
        Self::start(names.filter(|name| !name.ends_with(" on SQLite")).collect()).await
    }

    /// Its server, which is of this type.
    pub fn server<S: Server>(&self) -> &S {
        self.servers.find().expect("the backend has such a server")
    }

    /// Its server, to be changed.
    pub fn server_mut<S: Server>(&mut self) -> &mut S {
        self.servers.find_mut().expect("the backend has such a server")
    }

    /// Whether its server forgets all locks when it is started again. Of several, one is, and the others
    /// remember.
    pub fn forgets(&self) -> bool {
        self.servers.find::<Redis>().is_some()
    }

    /// The key of the configuration that says where its server is.
    fn server_key(&self) -> &'static str {
        self.strategy.server().map_or("store.url", |server| server.key)
    }

    /// The configuration of a participant.
    pub fn keys(&self) -> Vec<(String, String)> {
        let lease = format!("{}ms", LEASE.as_millis());
        let mut keys = vec![
            ("store.url", self.url.clone()),
            ("store.timeout", lease.clone()),
            ("lock.strategy", self.strategy.to_string()),
        ];
        keys.extend(self.strategy.lease_key().map(|key| (key, lease)));
        keys.extend(
            self.strategy.server().zip(self.servers.iter().next()).map(|(at, server)| (at.key, server.url())),
        );
        let keys = keys.into_iter().map(|(key, value)| (key.to_owned(), value));
        keys.chain(self.more_keys.iter().cloned()).collect()
    }

    /// Proxies before the server, and the configuration of a participant that comes through them.
    pub async fn proxied(&self) -> (Proxies, Vec<(String, String)>) {
        let server = self.servers.iter().next().expect("it has a server");
        let mut proxies = Vec::new();
        for address in server.addresses() {
            proxies.push(Proxy::start(&address).await.expect("the proxy starts"));
        }
        let addresses: Vec<_> = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
        let mut keys = self.keys();
        keys.retain(|(key, _)| key != self.server_key());
        keys.push((self.server_key().into(), server.url_at(&addresses)));
        (Proxies(proxies), keys)
    }

    pub async fn connect(&self, keys: &[(String, String)]) -> Arc<dyn Lock> {
        self.connect_counted(keys, &Metrics::new(self.strategy)).await
    }

    pub async fn connect_counted(&self, keys: &[(String, String)], metrics: &Metrics) -> Arc<dyn Lock> {
        let give_up = after(20_000);
        loop {
            match self.try_connect(keys, metrics).await {
                Ok(lock) => return lock,
                // A session as short as `LEASE` ends before a server that has other things to do has made it.
                Err(lock::ConnectError::Lock(error)) if Instant::now() < give_up => {
                    println!("{}: {error}", self.name);
                    sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{}: {error}", self.name),
            }
        }
    }

    async fn try_connect(
        &self,
        keys: &[(String, String)],
        metrics: &Metrics,
    ) -> Result<Arc<dyn Lock>, lock::ConnectError> {
        let config = Config::load(&Sources { overrides: keys.to_vec(), ..Sources::default() })?;
        lock::connect(&config, token_generations(&self.store), metrics).await
    }

    /// Why a participant is refused that has these keys beside.
    pub async fn refused(&self, keys: &[(&str, &str)]) -> String {
        let mut all = self.keys();
        all.extend(keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        match self.try_connect(&all, &Metrics::new(self.strategy)).await {
            Ok(_) => panic!("{}: {keys:?} are not refused", self.name),
            Err(error) => error.to_string(),
        }
    }

    pub async fn participant(&self) -> Arc<dyn Lock> {
        match &self.shared {
            Some(lock) => Arc::clone(lock),
            None => self.connect(&self.keys()).await,
        }
    }

    /// Ends the server at once and starts it again, where there is one.
    pub async fn restart(&mut self) {
        let Some(kind) = self.servers.iter().next().map(|server| server.kind()) else { return };
        let server = self.servers.get_mut(kind).expect("it has one");
        server.kill().await.expect("it is killed");
        server.restart().await.expect("it starts again");
    }

    /// Stops the server, or the one of several whose loss hurts most, until it is resumed.
    pub async fn pause(&self) {
        self.first_server().pause().await.expect("it is stopped");
    }

    pub fn resume(&self) {
        self.first_server().resume().expect("it goes on");
    }

    fn first_server(&self) -> &dyn Server {
        self.servers.iter().next().expect("it has one")
    }

    /// Sells one piece of `KEY` in a service with these keys.
    pub async fn sell_one(&self) {
        let mut overrides = self.keys();
        overrides.push(("server.listen".into(), "127.0.0.1:0".into()));
        let mut config = Config::load(&Sources { overrides, ..Sources::default() }).expect("a configuration");
        config.catalog.push(CatalogEntry { sku: KEY.into(), name: "Hair dryer".into(), stock: 1 });
        let app = App::build(&config).await.unwrap_or_else(|error| panic!("{}: {error:#}", self.name));
        let url = format!("http://{}/v1/orders", app.address());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(app.run(async { drop(stopped.await) }));
        // The client can do TLS, and asks for it although no test does.
        rustls::crypto::ring::default_provider().install_default().ok();
        let body = serde_json::json!({"sku": KEY, "quantity": 1, "buyer": "A"});
        let answer = reqwest::Client::new().post(&url).json(&body).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 201, "{}: {:?}", self.name, answer.text().await);
        drop(stop);
        running.await.expect("it stops");
    }

    /// That nobody has or awaits the lock, as soon as what is under way in the background has ended.
    pub async fn assert_free(&self, lock: &dyn Lock) {
        let deadline = after(8_000);
        loop {
            let census = lock.state(KEY).await;
            if census.as_ref().is_ok_and(|census| census.holders.is_empty() && census.waiting == 0) {
                break;
            }
            assert!(Instant::now() < deadline, "{}: left behind: {census:?}", self.name);
            sleep(Duration::from_millis(10)).await;
        }
        // Soon; a session that was busy for long has to be heard of first.
        let lease = lock.acquire(KEY, Mode::Exclusive, after(8_000)).await;
        lease.unwrap_or_else(|error| panic!("{}: {error}", self.name)).release().await;
    }

    /// Waits until so many have the lock, as a participant sees it.
    pub async fn until_held_by(&self, lock: &dyn Lock, holders: usize) {
        let deadline = after(5_000);
        loop {
            let census = lock.state(KEY).await.expect("the lock state");
            if census.holders.len() == holders {
                return;
            }
            assert!(Instant::now() < deadline, "{}: {census:?}, not {holders}", self.name);
            sleep(Duration::from_millis(2)).await;
        }
    }
}

/// The ways of one participant to the processes of a server. All are the same.
pub struct Proxies(Vec<Proxy>);

impl Proxies {
    /// Each of them.
    pub fn each(&self) -> &[Proxy] {
        &self.0
    }

    pub fn delay(&self, direction: Direction, delay: Duration) {
        self.0.iter().for_each(|proxy| proxy.delay(direction, delay));
    }

    pub fn blackhole(&self, direction: Direction) {
        self.0.iter().for_each(|proxy| proxy.blackhole(direction));
    }

    pub fn refuse(&self) {
        self.0.iter().for_each(Proxy::refuse);
    }

    pub fn cut(&self) {
        self.0.iter().for_each(Proxy::cut);
    }

    pub fn heal(&self) {
        self.0.iter().for_each(Proxy::heal);
    }
}

pub fn after(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}
