//! Replicas of the service to fire at, in a laboratory of their own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use lab::{Ensemble, Lab, Postgres, Process, Proxy, Redis, Zookeeper};
use order_service::config::{Config, Sources, StoreSection, StrategyName};
use order_service::lock::DatabaseLock;
use tokio::process::Command;
use uuid::Uuid;

use crate::client::Client;
use crate::faults::Server;
use crate::resources::Processes;

/// How many servers an ensemble has.
const SERVERS: usize = 3;

/// How long a replica may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long leases are in a laboratory: a holder that is gone is waited for in tests and experiments.
pub const LEASE: Duration = Duration::from_secs(2);

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
    /// Further keys of the configuration with their values. A server whose address is among them is not started.
    pub overrides: Vec<(String, String)>,
    /// Whether each replica reaches each server through a proxy of its own, which can be slow or broken.
    pub proxied: bool,
    /// Whether the servers are such that their clocks can be stepped and their disks be full.
    pub breakable: bool,
    /// Whether ZooKeeper is an ensemble of three servers, between which the network can be broken.
    pub ensemble: bool,
}

impl FleetPlan {
    /// Replicas under `strategy`, started from this very program.
    pub fn new(strategy: StrategyName, replicas: usize) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find the program to start replicas from")?;
        let lease = humantime::format_duration(LEASE).to_string();
        let mut overrides = vec![
            ("lock.database.lease".into(), lease.clone()),
            // All holds of a run are looked at.
            ("checkout.holds_kept".into(), "1000000".into()),
        ];
        if strategy == StrategyName::Redis {
            overrides.push(("lock.redis.lease".into(), lease.clone()));
        }
        if strategy == StrategyName::Zookeeper {
            overrides.push(("lock.zookeeper.session_timeout".into(), lease));
        }
        let store = StoreKind::Sqlite;
        let (proxied, breakable, ensemble) = (false, false, false);
        Ok(Self { program, strategy, store, replicas, overrides, proxied, breakable, ensemble })
    }

    /// Whether the plan says where a server is, that it need not be started.
    fn has(&self, key: &str) -> bool {
        self.overrides.iter().any(|(known, _)| known == key)
    }

    /// The plan with one more key.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.overrides.push((key.into(), value.into()));
        self
    }
}

/// The ways of one replica to its servers: a proxy for each that there is.
#[derive(Debug, Default)]
pub struct Links {
    /// To the database.
    pub postgres: Option<Proxy>,
    /// To Redis.
    pub redis: Option<Proxy>,
    /// To ZooKeeper: to each of its servers.
    pub zookeeper: Vec<Proxy>,
}

impl Links {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Proxy> {
        self.postgres.iter().chain(&self.redis).chain(&self.zookeeper)
    }

    /// Those to one kind of server.
    pub fn to(&self, server: Server) -> Vec<&Proxy> {
        match server {
            Server::Postgres => self.postgres.iter().collect(),
            Server::Redis => self.redis.iter().collect(),
            Server::Zookeeper => self.zookeeper.iter().collect(),
        }
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
    links: Vec<Links>,
    roster: Processes,
    /// Last, so that they outlive the replicas.
    postgres: Option<Postgres>,
    redis: Option<Redis>,
    zookeeper: Option<Zookeeper>,
    ensemble: Option<Ensemble>,
}

impl Fleet {
    /// Starts the replicas and waits until each listens.
    pub async fn start(plan: FleetPlan) -> anyhow::Result<Self> {
        let lab = Lab::new().context("cannot make a temporary directory")?;
        let postgres = match plan.store {
            StoreKind::Sqlite => None,
            StoreKind::Postgres if plan.has("store.url") => None,
            StoreKind::Postgres if plan.breakable => Some(Postgres::start_breakable().await?),
            StoreKind::Postgres => Some(Postgres::start().await?),
        };
        let store_url = match &postgres {
            None => format!("sqlite://{}", lab.file("stocklock.db").display()),
            Some(postgres) => postgres.url("postgres"),
        };
        let redis = match plan.strategy {
            StrategyName::Redis if plan.has("lock.redis.url") => None,
            StrategyName::Redis if plan.breakable => Some(Redis::start_breakable().await?),
            StrategyName::Redis => Some(Redis::start().await?),
            _ => None,
        };
        let (mut zookeeper, mut ensemble) = (None, None);
        if plan.strategy == StrategyName::Zookeeper && !plan.has("lock.zookeeper.servers") {
            match plan.ensemble {
                true => ensemble = Some(Ensemble::start_linked(SERVERS).await?),
                false => zookeeper = Some(Zookeeper::start().await?),
            }
        }
        let token = Uuid::new_v4().to_string();
        let mut fleet = Self {
            plan,
            lab,
            store_url,
            token,
            replicas: Vec::new(),
            clients: Vec::new(),
            links: Vec::new(),
            roster: Processes::default(),
            postgres,
            redis,
            zookeeper,
            ensemble,
        };
        for index in 0..fleet.plan.replicas {
            let links = if fleet.plan.proxied { fleet.links().await? } else { Links::default() };
            fleet.links.push(links);
            let (process, client) = fleet.spawn(index, "127.0.0.1:0").await?;
            fleet.replicas.push(process);
            fleet.clients.push(client);
        }
        Ok(fleet)
    }

    /// A proxy before each server.
    async fn links(&self) -> anyhow::Result<Links> {
        let before = async |address: Option<String>| match address {
            Some(address) => Proxy::start(&address).await.map(Some).context("cannot start a proxy"),
            None => Ok(None),
        };
        let alone = self.zookeeper.iter().map(Zookeeper::address);
        let several = self.ensemble.iter().flat_map(|ensemble| ensemble.addresses());
        let mut zookeeper = Vec::new();
        for address in alone.chain(several) {
            zookeeper.extend(before(Some(address)).await?);
        }
        Ok(Links {
            postgres: before(self.postgres.as_ref().map(Postgres::address)).await?,
            redis: before(self.redis.as_ref().map(Redis::address)).await?,
            zookeeper,
        })
    }

    async fn spawn(&self, index: usize, listen: &str) -> anyhow::Result<(Process, Client)> {
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
        for (key, value) in self.keys(&name, listen, &self.links[index]) {
            command.arg(format!("--{key}")).arg(value);
        }
        let log = self.lab.file(&format!("{name}.log"));
        let started = Process::start(name.clone(), command, log, "listening on ", PATIENCE).await;
        let (process, address) = started?;
        self.roster.lock().expect("nobody panics").insert(name, process.id());
        Ok((process, Client::new(&address, &self.token)))
    }

    fn keys(&self, name: &str, listen: &str, links: &Links) -> Vec<(String, String)> {
        let mut keys = vec![
            ("server.listen", listen.to_owned()),
            ("server.replica", name.to_owned()),
            ("store.url", self.store_url.clone()),
            ("lock.strategy", self.plan.strategy.to_string()),
        ];
        if let (Some(postgres), Some(proxy)) = (&self.postgres, &links.postgres) {
            keys.push(("store.url", postgres.url_through(proxy, "postgres")));
        }
        if let Some(redis) = &self.redis {
            let url = links.redis.as_ref().map_or_else(|| redis.url(), |proxy| redis.url_through(proxy));
            keys.push(("lock.redis.url", url));
        }
        let servers = self.zookeeper.as_ref().map(Zookeeper::servers);
        if let Some(servers) = servers.or_else(|| self.ensemble.as_ref().map(Ensemble::servers)) {
            let through: Vec<_> = links.zookeeper.iter().map(|proxy| proxy.address().to_string()).collect();
            let servers = if through.is_empty() { servers } else { through.join(",") };
            keys.push(("lock.zookeeper.servers", servers));
        }
        let keys = keys.into_iter().map(|(key, value)| (key.to_owned(), value));
        // The last value of a key counts.
        let mut last = Vec::<(String, String)>::new();
        for (key, value) in keys.chain(self.plan.overrides.iter().cloned()) {
            last.retain(|(known, _)| *known != key);
            last.push((key, value));
        }
        last
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

    /// The ZooKeeper servers, where the plan has asked for several.
    pub fn ensemble(&mut self) -> Option<&mut Ensemble> {
        self.ensemble.as_mut()
    }

    /// The ways of a replica to its servers, where the plan has asked for proxies.
    pub fn links_of(&self, index: usize) -> &Links {
        &self.links[index]
    }

    /// Starts a replica again that was killed, at the same address.
    pub async fn restart(&mut self, index: usize) -> anyhow::Result<()> {
        self.replicas[index].kill().await?;
        let listen = self.clients[index].base().trim_start_matches("http://").to_owned();
        (self.replicas[index], _) = self.spawn(index, &listen).await?;
        Ok(())
    }

    /// The replicas' processes.
    pub fn roster(&self) -> &Processes {
        &self.roster
    }

    /// The replicas' admin token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// What the replicas are.
    pub fn plan(&self) -> &FleetPlan {
        &self.plan
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
        let sources = Sources {
            overrides: self.keys("operator", "127.0.0.1:0", &Links::default()),
            ..Sources::default()
        };
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
