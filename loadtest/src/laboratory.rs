//! Everything at once for a person to play with: all servers, as far as they are installed, and replicas of
//! the service that use them.

use std::fmt;

use lab::{ServerKind, Servers, Setup};
use order_service::config::StrategyName;

use crate::fleet::{Fleet, FleetPlan, StoreKind, key_of, servers_of};

/// Servers and replicas. All end with the value.
pub struct Laboratory {
    /// First, so that the replicas end before their servers.
    fleet: Fleet,
    servers: Servers,
}

impl Laboratory {
    /// Starts all servers that are installed, set up as `setup` says, and replicas under `strategy`.
    pub async fn open(
        strategy: StrategyName,
        store: StoreKind,
        replicas: usize,
        setup: Setup,
        overrides: &[(String, String)],
    ) -> anyhow::Result<Self> {
        if let Some(missing) = servers_of(strategy, store).find_map(ServerKind::missing) {
            anyhow::bail!(missing);
        }
        let installed = ServerKind::ALL.into_iter().filter(|kind| kind.is_installed());
        let servers = Servers::start(installed, setup).await?;
        let mut plan = FleetPlan::new(strategy, replicas)?.with("admin.allow_reset", "true");
        plan.store = store;
        for server in servers_of(strategy, store).filter_map(|kind| servers.get(kind)) {
            plan = plan.with(key_of(server.kind()), &server.url());
        }
        plan.overrides.extend_from_slice(overrides);
        Ok(Self { fleet: Fleet::start(plan).await?, servers })
    }

    /// All addresses, as variables of the environment: those of the servers, `SHOP_1` and so on for the
    /// replicas, and their `TOKEN`.
    pub fn variables(&self) -> Vec<(String, String)> {
        let clients = self.fleet.clients().iter().enumerate();
        let shops =
            clients.map(|(number, client)| (format!("SHOP_{}", number + 1), client.base().to_owned()));
        let token = ("TOKEN".to_owned(), self.fleet.token().to_owned());
        variables(&self.servers).into_iter().chain(shops).chain([token]).collect()
    }
}

/// The addresses of servers, as variables of the environment: `POSTGRES_URL`.
pub fn variables(servers: &Servers) -> Vec<(String, String)> {
    servers.iter().map(|server| (format!("{}_URL", server.kind()).to_uppercase(), server.url())).collect()
}

impl fmt::Display for Laboratory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for kind in ServerKind::ALL {
            let not_installed = || format!("not installed; {}", kind.install());
            let url = self.servers.get(kind).map_or_else(not_installed, |server| server.url());
            writeln!(f, "{:12}{url}", kind.title())?;
        }
        for client in self.fleet.clients() {
            writeln!(f, "replica     {}", client.base())?;
        }
        let strategy = self.fleet.plan().strategy;
        writeln!(f, "\nThe replicas' strategy is {strategy}, and their admin token {}.", self.fleet.token())?;
        writeln!(f, "A service of your own reaches the servers with this order-service.toml:\n")?;
        for server in self.servers.iter() {
            let (section, key) = key_of(server.kind()).rsplit_once('.').expect("every key is in a section");
            writeln!(f, "[{section}]\n{key} = \"{}\"\n", server.url())?;
        }
        writeln!(f, "[lock]\nstrategy = \"{strategy}\"\n")?;
        let targets: Vec<_> =
            self.fleet.clients().iter().map(|client| format!("--target {}", client.base())).collect();
        writeln!(f, "To fire at the replicas:\n")?;
        writeln!(f, "    loadtest run {} --token {}\n", targets.join(" "), self.fleet.token())?;
        write!(f, "Ctrl-C ends them all, with their data.")
    }
}
