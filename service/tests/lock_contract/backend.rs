//! The backends under test, and ways to take part in them.

use std::sync::Arc;
use std::time::Duration;

use lab::{Postgres, Proxy, Redis, Zookeeper};
use order_service::app::token_generations;
use order_service::config::{Config, Sources, StoreSection, StrategyName};
use order_service::lock::{self, Lock, Mode};
use order_service::store::{self, Store};
use order_service::telemetry::Metrics;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// What is locked.
pub const KEY: &str = "hair-dryer";

/// Of all leases and sessions.
pub const LEASE: Duration = Duration::from_secs(1);

/// A backend, and a way to take part in it.
pub struct Backend {
    pub name: &'static str,
    pub url: String,
    pub store: Arc<dyn Store>,
    pub redis: Option<Redis>,
    pub zookeeper: Option<Zookeeper>,
    pub postgres: Option<Postgres>,
    strategy: StrategyName,
    /// Of `local`, which promises nothing between processes: one lock, shared by all participants.
    shared: Option<Arc<dyn Lock>>,
    _directory: TempDir,
}

impl Backend {
    pub async fn new(name: &'static str) -> Self {
        let strategy = name.split(' ').next().expect("the strategy comes first");
        let strategy = strategy.parse().expect("a strategy");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let postgres = match name.ends_with("on PostgreSQL") {
            true => Some(Postgres::start().await.expect("PostgreSQL starts")),
            false => None,
        };
        let url = match &postgres {
            Some(postgres) => postgres.url("postgres"),
            None => format!("sqlite://{}", directory.path().join("locks.db").display()),
        };
        let redis = match strategy {
            StrategyName::Redis => Some(Redis::start().await.expect("Redis starts")),
            _ => None,
        };
        let zookeeper = match strategy {
            StrategyName::Zookeeper => Some(Zookeeper::start().await.expect("ZooKeeper starts")),
            _ => None,
        };
        let section = StoreSection { url: url.clone(), ..StoreSection::default() };
        let store = store::connect(&section).await.expect("the store opens");
        let mut backend = Self {
            name,
            url,
            store,
            redis,
            zookeeper,
            postgres,
            strategy,
            shared: None,
            _directory: directory,
        };
        if strategy == StrategyName::Local {
            backend.shared = Some(backend.connect(&backend.keys()).await);
        }
        backend
    }

    /// All that must keep the contract.
    pub async fn all() -> Vec<Self> {
        let mut all = vec![Self::new("local").await];
        all.extend(Self::between_processes().await);
        all
    }

    /// All that keep it between processes.
    pub async fn between_processes() -> Vec<Self> {
        let mut all = vec![Self::new("database on SQLite").await];
        all.extend(Self::over_the_network().await);
        all
    }

    /// All that are servers, which can be out of reach.
    pub async fn over_the_network() -> Vec<Self> {
        vec![
            Self::new("database on PostgreSQL").await,
            Self::new("redis").await,
            Self::new("zookeeper").await,
        ]
    }

    /// The configuration of a participant.
    pub fn keys(&self) -> Vec<(String, String)> {
        let lease = format!("{}ms", LEASE.as_millis());
        let mut keys = vec![
            ("store.url", self.url.clone()),
            ("store.timeout", lease.clone()),
            ("lock.strategy", self.strategy.to_string()),
            ("lock.database.lease", lease.clone()),
        ];
        if let Some(redis) = &self.redis {
            keys.extend([("lock.redis.url", redis.url()), ("lock.redis.lease", lease.clone())]);
        }
        if let Some(zookeeper) = &self.zookeeper {
            keys.push(("lock.zookeeper.servers", zookeeper.servers()));
            keys.push(("lock.zookeeper.session_timeout", lease));
        }
        keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// A proxy before the server, and the configuration of a participant that comes through it.
    pub async fn proxied(&self) -> (Proxy, Vec<(String, String)>) {
        let (address, scheme) = match (&self.redis, &self.zookeeper, &self.postgres) {
            (Some(redis), _, _) => (redis.address(), "lock.redis.url"),
            (_, Some(zookeeper), _) => (zookeeper.address(), "lock.zookeeper.servers"),
            (_, _, Some(postgres)) => (postgres.address(), "store.url"),
            _ => unreachable!("{} has no server", self.name),
        };
        let proxy = Proxy::start(&address).await.expect("the proxy starts");
        let mut keys = self.keys();
        for (key, value) in &mut keys {
            if key == scheme {
                *value = value.replace(&address, &proxy.address().to_string());
            }
        }
        (proxy, keys)
    }

    pub async fn connect(&self, keys: &[(String, String)]) -> Arc<dyn Lock> {
        self.connect_counted(keys, &Metrics::new(self.strategy)).await
    }

    pub async fn connect_counted(&self, keys: &[(String, String)], metrics: &Metrics) -> Arc<dyn Lock> {
        let config = Config::load(&Sources { overrides: keys.to_vec(), ..Sources::default() });
        let config = config.expect("a configuration");
        lock::connect(&config, token_generations(&self.store), metrics).await.expect("the lock connects")
    }

    pub async fn participant(&self) -> Arc<dyn Lock> {
        match &self.shared {
            Some(lock) => Arc::clone(lock),
            None => self.connect(&self.keys()).await,
        }
    }

    /// Ends the server at once and starts it again.
    pub async fn restart(&mut self) {
        if let Some(redis) = &mut self.redis {
            redis.kill().await.expect("Redis is killed");
            redis.restart().await.expect("Redis starts again");
        }
        if let Some(zookeeper) = &mut self.zookeeper {
            zookeeper.kill().await.expect("ZooKeeper is killed");
            zookeeper.restart().await.expect("ZooKeeper starts again");
        }
        if let Some(postgres) = &mut self.postgres {
            postgres.kill().await.expect("PostgreSQL is killed");
            postgres.restart().await.expect("PostgreSQL starts again");
        }
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
        let lease = lock.acquire(KEY, Mode::Exclusive, after(3_000)).await;
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

pub fn after(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}
