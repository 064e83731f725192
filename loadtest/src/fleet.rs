//! Replicas of the service to fire at, in a laboratory of their own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use lab::{Lab, Postgres, Process, Redis, Zookeeper};
use order_service::config::{Config, Sources, StoreSection, StrategyName};
use order_service::lock::DatabaseLock;
use tokio::process::Command;
use uuid::Uuid;

use crate::client::Client;

/// How long a replica may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the replicas keep their orders in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StoreKind {
    /// A file in the laboratory.
    Sqlite,
    /// A server in the laboratory.
    Postgres,
}

/// What replicas to start.
#[derive(Debug, Clone)]
pub struct FleetPlan {
    /// The load generator's own program: it starts itself as `serve`.
    pub program: PathBuf,
    /// The locking strategy of all replicas.
    pub strategy: StrategyName,
    /// The store they share.
    pub store: StoreKind,
    /// How many replicas.
    pub replicas: usize,
    /// Further keys of the configuration with their values.
    pub overrides: Vec<(String, String)>,
}

impl FleetPlan {
    /// Replicas under `strategy`, started from this very program.
    pub fn new(strategy: StrategyName, replicas: usize) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find the program to start replicas from")?;
        // A crashed holder is waited for in tests and experiments: seconds are enough here.
        let mut overrides = vec![("lock.database.lease".into(), "2s".into())];
        if strategy == StrategyName::Redis {
            overrides.push(("lock.redis.lease".into(), "2s".into()));
        }
        if strategy == StrategyName::Zookeeper {
            overrides.push(("lock.zookeeper.session_timeout".into(), "2s".into()));
        }
        Ok(Self { program, strategy, store: StoreKind::Sqlite, replicas, overrides })
    }

    /// The plan with one more key.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.overrides.push((key.into(), value.into()));
        self
    }
}

/// Replicas that share a private store. They are ended when the value is dropped.
pub struct Fleet {
    plan: FleetPlan,
    lab: Lab,
    store_url: String,
    token: String,
    replicas: Vec<Process>,
    clients: Vec<Client>,
    /// Last, so that they outlive the replicas.
    postgres: Option<Postgres>,
    redis: Option<Redis>,
    zookeeper: Option<Zookeeper>,
}

impl Fleet {
    /// Starts the replicas and waits until each listens.
    pub async fn start(plan: FleetPlan) -> anyhow::Result<Self> {
        let lab = Lab::new().context("cannot make a temporary directory")?;
        let postgres = match plan.store {
            StoreKind::Sqlite => None,
            StoreKind::Postgres => Some(Postgres::start().await?),
        };
        let store_url = match &postgres {
            None => format!("sqlite://{}", lab.file("stocklock.db").display()),
            Some(postgres) => postgres.url("postgres"),
        };
        let redis = match plan.strategy {
            StrategyName::Redis => Some(Redis::start().await?),
            _ => None,
        };
        let zookeeper = match plan.strategy {
            StrategyName::Zookeeper => Some(Zookeeper::start().await?),
            _ => None,
        };
        let token = Uuid::new_v4().to_string();
        let (replicas, clients) = (Vec::new(), Vec::new());
        let mut fleet = Self { plan, lab, store_url, token, replicas, clients, postgres, redis, zookeeper };
        for index in 0..fleet.plan.replicas {
            let (process, client) = fleet.spawn(index).await?;
            fleet.replicas.push(process);
            fleet.clients.push(client);
        }
        Ok(fleet)
    }

    async fn spawn(&self, index: usize) -> anyhow::Result<(Process, Client)> {
        let name = format!("replica-{}", index + 1);
        let mut command = Command::new(&self.plan.program);
        command.arg("serve").arg("--die-with-parent").current_dir(self.lab.path());
        // What is set outside is for somebody else's deployment.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("STOCKLOCK__") {
                command.env_remove(variable);
            }
        }
        command.env("STOCKLOCK__ADMIN__TOKEN", &self.token).env("RUST_LOG", "warn");
        for (key, value) in self.keys(&name) {
            command.arg(format!("--{key}")).arg(value);
        }
        let log = self.lab.file(&format!("{name}.log"));
        let (process, address) = Process::start(name, command, log, "listening on ", PATIENCE).await?;
        Ok((process, Client::new(&address, &self.token)))
    }

    fn keys(&self, name: &str) -> Vec<(String, String)> {
        let own = [
            ("server.listen", "127.0.0.1:0".into()),
            ("server.replica", name.to_owned()),
            ("store.url", self.store_url.clone()),
            ("lock.strategy", self.plan.strategy.to_string()),
        ];
        let own = own.into_iter().map(|(key, value)| (key.to_owned(), value));
        let redis = self.redis.as_ref().map(|redis| ("lock.redis.url".to_owned(), redis.url()));
        // The last value of a key counts.
        let servers = |zookeeper: &Zookeeper| ("lock.zookeeper.servers".to_owned(), zookeeper.servers());
        let zookeeper = self.zookeeper.as_ref().map(servers);
        let mut keys: Vec<(String, String)> = own.chain(redis).chain(zookeeper).collect();
        for (key, value) in &self.plan.overrides {
            keys.retain(|(known, _)| known != key);
            keys.push((key.clone(), value.clone()));
        }
        keys
    }

    /// Clients of the replicas, in their order.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// The replicas.
    pub fn replicas(&mut self) -> &mut [Process] {
        &mut self.replicas
    }

    /// The database server, where the store is one.
    pub fn postgres(&mut self) -> Option<&mut Postgres> {
        self.postgres.as_mut()
    }

    /// The Redis server, where the strategy needs one.
    pub fn redis(&mut self) -> Option<&mut Redis> {
        self.redis.as_mut()
    }

    /// The ZooKeeper server, where the strategy needs one.
    pub fn zookeeper(&mut self) -> Option<&mut Zookeeper> {
        self.zookeeper.as_mut()
    }

    /// Starts a replica again that was killed, at another address.
    pub async fn restart(&mut self, index: usize) -> anyhow::Result<()> {
        self.replicas[index].kill().await?;
        let (process, client) = self.spawn(index).await?;
        self.replicas[index] = process;
        self.clients[index] = client;
        Ok(())
    }

    /// Replicas that have ended, with how and the end of their logs.
    pub fn casualties(&mut self) -> Vec<String> {
        let dead = self.replicas.iter_mut().filter_map(|replica| {
            let status = replica.exited()?;
            Some(format!(
                "{} ended with {status}; the end of its log:\n{}",
                replica.name(),
                replica.log_tail()
            ))
        });
        dead.collect()
    }

    /// The lock table of the fleet's store, as an operator sees it.
    pub async fn lock_table(&self) -> anyhow::Result<DatabaseLock> {
        let sources = Sources { overrides: self.keys("operator"), ..Sources::default() };
        let config = Config::load(&sources)?;
        let store = StoreSection { url: config.store.url, ..StoreSection::default() };
        Ok(DatabaseLock::connect(&store, config.lock.database.lease, "operator").await?)
    }

    /// Stops all replicas as an operator would, by SIGTERM, and says which did not end well.
    pub async fn stop(self) -> anyhow::Result<()> {
        let stops = self.replicas.into_iter().map(|replica| async {
            let name = replica.name().to_owned();
            let status = replica.stop(PATIENCE).await?;
            anyhow::ensure!(status.success(), "{name} was asked to stop and ended with {status}");
            Ok(())
        });
        let mut tasks = Vec::new();
        for stop in stops {
            tasks.push(stop.await);
        }
        tasks.into_iter().collect()
    }

    /// Leaves the directory with the logs for somebody to look at.
    pub fn keep_logs(self) -> PathBuf {
        drop(self.replicas);
        self.lab.keep()
    }
}
