//! The lock's server is lost for a while, or one of its servers where there are three.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lab::{Ensemble, Server};
use order_service::config::StrategyName;
use tokio::time::{Instant, sleep, sleep_until};

use super::outage::{Outage, outage};
use super::{SKU, Timeline, seconds};
use crate::fleet::{Fleet, FleetPlan, StoreKind};
use crate::progress::Progress;
use crate::report::RunReport;

/// How long the server is gone.
const LOST: Duration = Duration::from_secs(4);

/// What is in hand when the server goes is answered after so long.
const IN_HAND: Duration = Duration::from_millis(300);

/// How long orders come in, a hundred a second: before, during and after the loss.
const LOAD: Duration = Duration::from_secs(8);

/// The longest time until a request must be answered.
pub(in crate::experiments) const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// A shop that can lose a server.
pub(in crate::experiments) struct Shop {
    strategy: StrategyName,
    fleet: Fleet,
}

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::experiments) enum Victim {
    /// The only one there is.
    TheOne,
    /// One of three, who follows.
    Follower,
    /// One of three, who leads.
    Leader,
}

/// What the loss came to.
pub(in crate::experiments) struct Loss {
    /// The run, judged from the database when it was over.
    pub(in crate::experiments) run: RunReport,
    /// The longest time without a confirmed order.
    pub(in crate::experiments) gap: Duration,
    /// Orders that were confirmed while the server was gone.
    pub(in crate::experiments) confirmed: u64,
    /// Whether a customer could still see the product.
    pub(in crate::experiments) shows: bool,
}

impl Shop {
    /// Two replicas; ZooKeeper is an ensemble of three, and the lock table is in PostgreSQL.
    pub(in crate::experiments) async fn open(strategy: StrategyName) -> anyhow::Result<Self> {
        let mut plan = FleetPlan::new(strategy, 2)?
            .with("lock.wait", "2s")
            .with("store.timeout", "1s")
            .with("server.request_timeout", &format!("{}s", REQUEST_TIMEOUT.as_secs()));
        plan.setup.is_ensemble = true;
        match strategy {
            StrategyName::Database => plan.store = StoreKind::Postgres,
            StrategyName::Zookeeper => plan = plan.with("lock.zookeeper.session_timeout", "4s"),
            _ => {}
        }
        let fleet = Fleet::start(plan).await?;
        fleet.clients()[0].create_product(SKU, "Hair dryer", 1).await?;
        Ok(Self { strategy, fleet })
    }

    /// Loses a server for four seconds while orders come in, and has it back.
    pub(in crate::experiments) async fn lose(
        &mut self,
        victim: Victim,
        timeline: &mut Timeline,
    ) -> anyhow::Result<Loss> {
        let clients = self.fleet.clients().to_vec();
        let progress = Arc::new(Progress::default());
        let breaking = async {
            while progress.sold() < 50 {
                sleep(Duration::from_millis(2)).await;
            }
            self.kill(victim).await?;
            let gone = Instant::now();
            timeline.note(format!("{}: {} killed", self.strategy, self.name(victim)));
            sleep(IN_HAND).await;
            let before = progress.sold();
            let shows = clients[1].product(SKU).await.is_ok();
            sleep_until(gone + LOST).await;
            let confirmed = progress.sold() - before;
            timeline.note(format!("{confirmed} orders confirmed since, and the server is started again"));
            self.server()?.restart().await?;
            anyhow::Ok((confirmed, shows))
        };
        let Outage { run, gap, broken: (confirmed, shows) } =
            outage(&clients, LOAD, &progress, breaking).await?;
        timeline.note(format!(
            "{}: {} orders confirmed, {} refused, {} unknown; the longest gap was {}",
            self.strategy,
            run.accepted,
            run.failed,
            run.unknown,
            seconds(gap)
        ));
        Ok(Loss { run, gap, confirmed, shows })
    }

    fn name(&self, victim: Victim) -> &'static str {
        match (self.strategy, victim) {
            (StrategyName::Database, _) => "PostgreSQL is",
            (StrategyName::Redis, _) => "Redis is",
            (_, Victim::Leader) => "the leader of three ZooKeeper servers is",
            _ => "one of three ZooKeeper servers, a follower, is",
        }
    }

    /// Kills the server, or one of its processes.
    async fn kill(&mut self, victim: Victim) -> anyhow::Result<()> {
        if let Some(ensemble) = self.fleet.servers_mut().find_mut::<Ensemble>() {
            let leader = ensemble.leader().await;
            let leader = leader.ok_or_else(|| anyhow::anyhow!("the ensemble has no leader"))?;
            let number = if victim == Victim::Leader { leader } else { (leader + 1) % ensemble.size() };
            ensemble.kill(number).await?;
            return Ok(());
        }
        self.server()?.kill().await?;
        Ok(())
    }

    /// The server that the locks are on; the fleet has no other.
    fn server(&mut self) -> anyhow::Result<&mut (dyn Server + 'static)> {
        let kind = self.fleet.servers().iter().next().map(|server| server.kind());
        let server = kind.and_then(|kind| self.fleet.servers_mut().get_mut(kind));
        server.context("the locks are on no server")
    }
}
