//! Everything at once for a person to play with: the three servers, as far as they are installed, and replicas of the
//! service that use them.

use std::fmt;

use anyhow::ensure;
use lab::{INSTALL_POSTGRES, INSTALL_REDIS, INSTALL_ZOOKEEPER, Postgres, Redis, Zookeeper};
use order_service::config::StrategyName;

use crate::compare::obstacle;
use crate::fleet::{Fleet, FleetPlan, StoreKind};

/// Servers and replicas. All end with the value.
pub struct Laboratory {
    /// First, so that the replicas end before their servers.
    fleet: Fleet,
    postgres: Option<Postgres>,
    redis: Option<Redis>,
    zookeeper: Option<Zookeeper>,
}

impl Laboratory {
    /// Starts all servers that are installed, and replicas under `strategy`.
    pub async fn open(
        strategy: StrategyName,
        store: StoreKind,
        replicas: usize,
        overrides: &[(String, String)],
    ) -> anyhow::Result<Self> {
        if let Some(missing) = obstacle(strategy) {
            let install = missing.install.unwrap_or_default();
            anyhow::bail!("{}; {install}", missing.reason);
        }
        ensure!(
            store != StoreKind::Postgres || Postgres::is_installed(),
            "PostgreSQL is not installed; {INSTALL_POSTGRES}"
        );
        let postgres = if Postgres::is_installed() { Some(Postgres::start().await?) } else { None };
        let redis = if Redis::is_installed() { Some(Redis::start().await?) } else { None };
        let zookeeper = if Zookeeper::is_installed() { Some(Zookeeper::start().await?) } else { None };
        let mut plan = FleetPlan::new(strategy, replicas)?.with("admin.allow_reset", "true");
        plan.store = store;
        if let Some(postgres) = postgres.as_ref().filter(|_| store == StoreKind::Postgres) {
            plan = plan.with("store.url", &postgres.url("postgres"));
        }
        if let Some(redis) = redis.as_ref().filter(|_| strategy == StrategyName::Redis) {
            plan = plan.with("lock.redis.url", &redis.url());
        }
        if let Some(zookeeper) = zookeeper.as_ref().filter(|_| strategy == StrategyName::Zookeeper) {
            plan = plan.with("lock.zookeeper.servers", &zookeeper.servers());
        }
        plan.overrides.extend_from_slice(overrides);
        Ok(Self { fleet: Fleet::start(plan).await?, postgres, redis, zookeeper })
    }
}

impl fmt::Display for Laboratory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = |address: Option<String>, install: &str| {
            address.unwrap_or_else(|| format!("not installed; {install}"))
        };
        let postgres = self.postgres.as_ref().map(|postgres| postgres.url("postgres"));
        let redis = self.redis.as_ref().map(Redis::url);
        let zookeeper = self.zookeeper.as_ref().map(Zookeeper::servers);
        writeln!(f, "PostgreSQL  {}", server(postgres.clone(), INSTALL_POSTGRES))?;
        writeln!(f, "Redis       {}", server(redis.clone(), INSTALL_REDIS))?;
        writeln!(f, "ZooKeeper   {}", server(zookeeper.clone(), INSTALL_ZOOKEEPER))?;
        for client in self.fleet.clients() {
            writeln!(f, "replica     {}", client.base())?;
        }
        let strategy = self.fleet.plan().strategy;
        writeln!(f, "\nThe replicas' strategy is {strategy}, and their admin token {}.", self.fleet.token())?;
        writeln!(f, "A service of your own reaches the servers with this order-service.toml:\n")?;
        if let Some(url) = postgres {
            writeln!(f, "[store]\nurl = \"{url}\"\n")?;
        }
        writeln!(f, "[lock]\nstrategy = \"{strategy}\"\n")?;
        if let Some(url) = redis {
            writeln!(f, "[lock.redis]\nurl = \"{url}\"\n")?;
        }
        if let Some(servers) = zookeeper {
            writeln!(f, "[lock.zookeeper]\nservers = \"{servers}\"\n")?;
        }
        let targets: Vec<_> =
            self.fleet.clients().iter().map(|client| format!("--target {}", client.base())).collect();
        writeln!(f, "To fire at the replicas:\n")?;
        writeln!(f, "    loadtest run {} --token {}\n", targets.join(" "), self.fleet.token())?;
        write!(f, "Ctrl-C ends them all, with their data.")
    }
}
