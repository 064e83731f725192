//! Replicas of the service to fire at, in a laboratory of their own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use lab::{Lab, Process, Proxy, RedisSentinels, Server, ServerKind, Servers, Setup};
use order_service::config::{Config, Sources, StoreSection, StrategyName};
use order_service::lock::DatabaseLock;
use tokio::process::Command;
use uuid::Uuid;

use crate::client::Client;
use crate::resources::Processes;

/// How long a replica may take to start, and to stop.
const TIMEOUT: Duration = Duration::from_secs(20);

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

impl StoreKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Sqlite, Self::Postgres];

    /// The name on command lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }

    /// The server that it takes, if it takes one.
    pub fn server(self) -> Option<ServerKind> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some(ServerKind::Postgres),
        }
    }
}

/// The server that the locks of a strategy are on, where that is another than the store's.
pub fn server_of(strategy: StrategyName) -> Option<ServerKind> {
    let server = strategy.server()?;
    Some(server.kind.parse().expect("a test starts the server of every strategy"))
}

/// The servers that a strategy on a store takes.
pub fn servers_of(strategy: StrategyName, store: StoreKind) -> impl Iterator<Item = ServerKind> {
    store.server().into_iter().chain(server_of(strategy))
}

/// The key of the service's configuration that says where a server is.
pub fn key_of(kind: ServerKind) -> &'static str {
    let of_locks = StrategyName::ALL.into_iter().filter(|strategy| server_of(*strategy) == Some(kind));
    of_locks.filter_map(StrategyName::server).map(|server| server.key).next().unwrap_or("store.url")
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
    /// Further keys of the configuration with their values. A server whose address is among them is not
    /// started.
    pub overrides: Vec<(String, String)>,
    /// Whether each replica reaches each server through a proxy of its own, which can be slow or broken.
    pub proxied: bool,
    /// How the servers are set up.
    pub setup: Setup,
}

impl FleetPlan {
    /// Replicas under `strategy`, started from this very program.
    pub fn new(strategy: StrategyName, replicas: usize) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find the program to start replicas from")?;
        let lease = humantime::format_duration(LEASE).to_string();
        // All holds of a run are read.
        let mut overrides = vec![("checkout.holds_kept".into(), "1000000".into())];
        overrides.extend(strategy.lease_key().map(|key| (key.into(), lease)));
        let store = StoreKind::Sqlite;
        let (proxied, setup) = (false, Setup::default());
        Ok(Self { program, strategy, store, replicas, overrides, proxied, setup })
    }

    /// Whether the plan says where a server is, that it need not be started.
    fn has(&self, key: &str) -> bool {
        self.overrides.iter().any(|(known, _)| known == key)
    }

    /// The servers that have to be started: that of the store and that of the locks, unless the plan says
    /// where one is.
    fn servers(&self) -> impl Iterator<Item = ServerKind> {
        servers_of(self.strategy, self.store).filter(|kind| !self.has(key_of(*kind)))
    }

    /// The plan with one more key.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.overrides.push((key.into(), value.into()));
        self
    }
}

/// The ways of one replica to its servers: proxies before each that there is.
#[derive(Debug, Default)]
pub struct Links(Vec<(ServerKind, Vec<Proxy>)>);

impl Links {
    /// A proxy before each address of each of `servers`.
    async fn start(servers: &Servers) -> anyhow::Result<Self> {
        let mut links = Vec::new();
        for server in servers.iter() {
            let mut proxies = Vec::new();
            for address in server.addresses() {
                proxies.push(Proxy::start(&address).await.context("cannot start a proxy")?);
            }
            links.push((server.kind(), proxies));
        }
        Ok(Self(links))
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Proxy> {
        self.0.iter().flat_map(|(_, proxies)| proxies)
    }

    /// Those to one kind of server; none where there is no such server, or no proxies were asked for.
    pub fn to(&self, kind: ServerKind) -> &[Proxy] {
        self.0.iter().find(|(known, _)| *known == kind).map_or(&[], |(_, proxies)| proxies)
    }

    /// What a replica is configured with to reach a server this way.
    fn url(&self, server: &dyn Server) -> String {
        match self.to(server.kind()) {
            [] => server.url(),
            proxies => {
                let through: Vec<_> = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
                server.url_at(&through)
            }
        }
    }
}

/// Replicas that share a private store. They are ended when the value is dropped.
pub struct Fleet {
    plan: FleetPlan,
    lab: Lab,
    token: String,
    replicas: Vec<Process>,
    clients: Vec<Client>,
    links: Vec<Links>,
    processes: Processes,
    /// Last, so that they outlive the replicas.
    servers: Servers,
}

impl Fleet {
    /// Starts the replicas and waits until each listens.
    pub async fn start(plan: FleetPlan) -> anyhow::Result<Self> {
        let lab = Lab::new().context("cannot make a temporary directory")?;
        let servers = Servers::start(plan.servers(), plan.setup).await?;
        let token = Uuid::new_v4().to_string();
        let mut fleet = Self {
            plan,
            lab,
            token,
            replicas: Vec::new(),
            clients: Vec::new(),
            links: Vec::new(),
            processes: Processes::default(),
            servers,
        };
        for index in 0..fleet.plan.replicas {
            let links = match fleet.plan.proxied {
                true => Links::start(&fleet.servers).await?,
                false => Links::default(),
            };
            fleet.links.push(links);
            let (process, client) = fleet.spawn(index, "127.0.0.1:0").await?;
            fleet.replicas.push(process);
            fleet.clients.push(client);
        }
        Ok(fleet)
    }

    async fn spawn(&self, index: usize, listen: &str) -> anyhow::Result<(Process, Client)> {
        let name = format!("replica-{}", index + 1);
        let mut command = Command::new(&self.plan.program);
        command.arg("serve").arg("--die-with-parent").current_dir(self.lab.path());
        // What is set outside is for another deployment.
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
        let started = Process::start(name.clone(), command, log, "listening on ", TIMEOUT).await;
        let (process, address) = started?;
        self.processes.lock().expect("nothing panics while it holds this").insert(name, process.id());
        Ok((process, Client::new(&address, &self.token)))
    }

    fn keys(&self, name: &str, listen: &str, links: &Links) -> Vec<(String, String)> {
        let file = format!("sqlite://{}", self.lab.file("stocklock.db").display());
        let mut keys = vec![
            ("server.listen", listen.to_owned()),
            ("server.replica", name.to_owned()),
            ("store.url", file),
            ("lock.strategy", self.plan.strategy.to_string()),
        ];
        keys.extend(self.servers.iter().map(|server| (key_of(server.kind()), links.url(server))));
        let sentinels = self.servers.find::<RedisSentinels>();
        keys.extend(sentinels.map(|sentinels| ("lock.redis.sentinel", sentinels.name().to_owned())));
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

    /// The servers that were started for it.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// The servers, to be changed.
    pub fn servers_mut(&mut self) -> &mut Servers {
        &mut self.servers
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

    /// Stops a replica as an operator would, by SIGTERM, and starts it again at the same address. Fails when
    /// it does not end well.
    pub async fn roll(&mut self, index: usize) -> anyhow::Result<()> {
        let replica = self.replicas.remove(index);
        let name = replica.name().to_owned();
        let status = replica.stop(TIMEOUT).await?;
        anyhow::ensure!(status.success(), "{name} was asked to stop and ended with {status}");
        let listen = self.clients[index].base().trim_start_matches("http://").to_owned();
        let (process, _) = self.spawn(index, &listen).await?;
        self.replicas.insert(index, process);
        Ok(())
    }

    /// The replicas' processes.
    pub fn processes(&self) -> &Processes {
        &self.processes
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
    pub fn exited_replicas(&mut self) -> Vec<String> {
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
            let status = replica.stop(TIMEOUT).await?;
            anyhow::ensure!(status.success(), "{name} was asked to stop and ended with {status}");
            Ok(())
        });
        let mut tasks = Vec::new();
        for stop in stops {
            tasks.push(stop.await);
        }
        tasks.into_iter().collect()
    }

    /// Leaves the directory with the logs to be read later.
    pub fn keep_logs(self) -> PathBuf {
        drop(self.replicas);
        self.lab.keep()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_of_every_strategy_can_be_started_and_is_configured_by_its_key() {
        for strategy in StrategyName::ALL {
            let key = server_of(strategy).map(key_of);
            assert_eq!(key, strategy.server().map(|server| server.key), "{strategy}");
        }
        assert_eq!(key_of(ServerKind::Postgres), "store.url");
    }
}
