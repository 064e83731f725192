//! Servers and deployments of the service, side by side, for measurements that alternate.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use lab::Postgres;
use order_service::config::StrategyName;

use super::catalogue::{Catalogue, Demand};
use super::peers;
use super::pgbench::{self, Pgbench};
use super::wrk::Wrk;
use crate::fleet::{Fleet, FleetPlan, StoreKind};

/// How long everything is loaded before it is measured.
const WARM: Duration = Duration::from_secs(1);

/// A deployment of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deployment {
    /// Its locks.
    pub(super) strategy: StrategyName,
    /// Whether each lock hold is for one order.
    pub(super) textbook: bool,
    /// How many replicas it has.
    pub(super) replicas: usize,
}

impl Deployment {
    /// One replica, configured as it comes.
    pub(super) const fn of(strategy: StrategyName) -> Self {
        Self { strategy, textbook: false, replicas: 1 }
    }

    /// What starts it: the service's defaults, since it is they that are measured.
    pub(super) fn plan(self) -> anyhow::Result<FleetPlan> {
        let mut plan = FleetPlan::new(self.strategy, self.replicas)?;
        plan.overrides.clear();
        plan.store = StoreKind::Postgres;
        Ok(if self.textbook { plan.with("checkout.max_batch", "1") } else { plan })
    }
}

/// Something to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// `pgbench` with so many clients, on so many products.
    Pgbench { clients: u32, products: u32 },
    /// Orders over so many connections to each replica.
    Orders { deployment: Deployment, connections: u32, demand: Demand },
    /// Requests that do nothing.
    Probes { deployment: Deployment, connections: u32 },
}

impl Load {
    fn deployment(self) -> Option<Deployment> {
        match self {
            Self::Pgbench { .. } => None,
            Self::Orders { deployment, .. } | Self::Probes { deployment, .. } => Some(deployment),
        }
    }
}

/// One PostgreSQL server, with a database for each deployment and one for `pgbench`.
pub(super) struct Testbed {
    running: Vec<Running>,
    pgbench: Option<Pgbench>,
    wrk: Wrk,
    /// Last, so that it outlives the deployments.
    _postgres: Postgres,
}

/// A deployment that runs.
struct Running {
    deployment: Deployment,
    fleet: Fleet,
    /// The products that are ordered again and again.
    catalogues: Vec<(Demand, Catalogue)>,
    created: usize,
}

impl Testbed {
    /// Starts what the loads need.
    pub(super) async fn start(loads: &[Load]) -> anyhow::Result<Self> {
        let wrk = Wrk::new(peers::wrk().context("wrk is not installed")?)?;
        let postgres = Postgres::start().await?;
        let products = loads.iter().filter_map(|load| match load {
            Load::Pgbench { products, .. } => Some(*products),
            _ => None,
        });
        let pgbench = match products.max() {
            Some(products) => Some(prepare_pgbench(&postgres, products).await?),
            None => None,
        };
        let mut running = Vec::<Running>::new();
        for deployment in loads.iter().filter_map(|load| load.deployment()) {
            if running.iter().all(|one| one.deployment != deployment) {
                running.push(Running::start(deployment, &postgres, running.len()).await?);
            }
        }
        Ok(Self { running, pgbench, wrk, _postgres: postgres })
    }

    /// Measures once: successes per second, and whatever the audit says is wrong afterwards.
    pub(super) async fn measure(&mut self, load: Load, time: Duration) -> anyhow::Result<(f64, Vec<String>)> {
        match load {
            Load::Pgbench { clients, products } => {
                let pgbench = self.pgbench.as_ref().expect("it is there when a load needs it");
                Ok((pgbench.measure(clients, products, time).await?, Vec::new()))
            }
            Load::Orders { deployment, connections, demand } => {
                let one = find(&mut self.running, deployment);
                one.order(&self.wrk, connections, demand, time).await
            }
            Load::Probes { deployment, connections } => {
                let replica = &find(&mut self.running, deployment).fleet.clients()[0];
                self.wrk.probe(replica, connections, WARM).await?;
                Ok((self.wrk.probe(replica, connections, time).await?.per_second, Vec::new()))
            }
        }
    }

    /// The processes of a deployment.
    pub(super) fn process_ids(&mut self, deployment: Deployment) -> Vec<i32> {
        find(&mut self.running, deployment).fleet.replicas().iter().map(lab::Process::id).collect()
    }

    /// Stops the deployments as an operator would.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        for one in self.running {
            one.fleet.stop().await?;
        }
        Ok(())
    }
}

fn find(running: &mut [Running], deployment: Deployment) -> &mut Running {
    let found = running.iter_mut().find(|one| one.deployment == deployment);
    found.expect("the deployments of all loads were started")
}

/// Has the service make its tables for `pgbench`, and fills them.
async fn prepare_pgbench(postgres: &Postgres, products: u32) -> anyhow::Result<Pgbench> {
    let plan = Deployment::of(StrategyName::Row).plan()?;
    Fleet::start(plan.with("store.url", &postgres.url_of(pgbench::DATABASE))).await?.stop().await?;
    let program = peers::pgbench().context("pgbench is not installed")?;
    Pgbench::new(program, postgres, products).await
}

impl Running {
    async fn start(deployment: Deployment, postgres: &Postgres, number: usize) -> anyhow::Result<Self> {
        let database = format!("deployment_{number}");
        postgres.query(&format!("create database {database}")).await?;
        let plan = deployment.plan()?.with("store.url", &postgres.url_of(&database));
        let fleet = Fleet::start(plan).await?;
        Ok(Self { deployment, fleet, catalogues: Vec::new(), created: 0 })
    }

    async fn order(
        &mut self,
        wrk: &Wrk,
        connections: u32,
        demand: Demand,
        time: Duration,
    ) -> anyhow::Result<(f64, Vec<String>)> {
        let mut catalogue = self.take_catalogue(demand).await?;
        let clients = self.fleet.clients();
        let warm = wrk.order(clients, connections, &catalogue, WARM).await?;
        let count = wrk.order(clients, connections, &catalogue, time).await?;
        let in_flight = 2 * u64::from(connections) * clients.len() as u64;
        let lost = warm.refused + warm.broken + count.refused + count.broken;
        catalogue.note(warm.succeeded + count.succeeded, in_flight + lost);
        let violations = catalogue.audit(&clients[0]).await?;
        if demand != Demand::One {
            self.catalogues.push((demand, catalogue));
        }
        Ok((count.per_second, violations))
    }

    /// Many products are created once; one product is a new one each time, so that its orders stay few.
    async fn take_catalogue(&mut self, demand: Demand) -> anyhow::Result<Catalogue> {
        if let Some(known) = self.catalogues.iter().position(|(known, _)| *known == demand) {
            return Ok(self.catalogues.swap_remove(known).1);
        }
        self.created += 1;
        Catalogue::create(&self.fleet.clients()[0], format!("catalogue-{}", self.created), demand).await
    }
}

impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.textbook { ", textbook" } else { "" };
        let replicas =
            if self.replicas == 1 { String::new() } else { format!(", {} replicas", self.replicas) };
        write!(f, "{}{mode}{replicas}", self.strategy)
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pgbench { clients, products } => write!(f, "pgbench -c {clients}, products: {products}"),
            Self::Orders { deployment, connections, demand } => {
                write!(f, "{deployment}, {connections} connections, {demand:?}")
            }
            Self::Probes { deployment, connections } => {
                write!(f, "{deployment}, {connections} connections, /livez")
            }
        }
    }
}
