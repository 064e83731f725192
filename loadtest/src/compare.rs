//! The same scenario under several strategies, with the negative control beside them; and one run against
//! somebody's deployment.

mod command;
mod length;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::{INSTALL_POSTGRES, INSTALL_REDIS, INSTALL_ZOOKEEPER, Postgres, Redis, Zookeeper};
use order_service::api::Info;
use order_service::config::StrategyName;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::client::Client;
use crate::collector::{self, Circumstances};
use crate::evidence::{Broken, FaultEvidence};
use crate::faults::{FaultMark, Injector, Schedule, send_slowly};
use crate::fleet::{self, Fleet, FleetPlan, StoreKind};
use crate::metrics::LockFigures;
use crate::progress::{Progress, TerminalBar};
use crate::report::{NotRun, Report, RunReport};
use crate::resources::Sampler;
use crate::runner;
use crate::scenario::{Amount, Scenario};
use crate::series::Series;
use crate::verdict::{Check, CheckName, Control, Status, Verdict, sensitive};

pub use length::{Length, ORDERS};

/// How long a run goes on, at the most, that only shows whether the load breaks a shop without a lock.
const LONGEST_CONTROL: Duration = Duration::from_secs(10);

/// What to compare.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Under which strategies.
    pub strategies: Vec<StrategyName>,
    /// On which store.
    pub store: StoreKind,
    /// On how many replicas.
    pub replicas: usize,
    /// How often.
    pub repeat: usize,
    /// Under which load. Each repetition has a seed of its own.
    pub scenario: Scenario,
    /// Further keys of the service's configuration.
    pub overrides: Vec<(String, String)>,
    /// What is broken meanwhile.
    pub faults: Schedule,
    /// Whether the same load is fired at a shop without a lock, too, where `none` is not among the strategies: whether it
    /// breaks that one says what the other verdicts are worth.
    pub control: bool,
}

/// Somebody who watches a suite while it goes on.
pub trait Watcher {
    /// A run begins; `progress` tells how far it has come.
    fn begins(&self, strategy: StrategyName, scenario: &Scenario, progress: &Arc<Progress>);
    /// A run has ended. What only the suite can say of it is not known yet.
    fn ends(&self, run: &RunReport);
}

/// Nobody watches.
impl Watcher for () {
    fn begins(&self, _: StrategyName, _: &Scenario, _: &Arc<Progress>) {}
    fn ends(&self, _: &RunReport) {}
}

/// Runs the plan in a laboratory; a fresh store and fresh replicas for each run.
pub async fn compare(plan: &Plan) -> anyhow::Result<Report> {
    compare_watched(plan, &(), &CancellationToken::new()).await
}

/// Runs the plan while somebody watches. When `stop` is cancelled, the run that goes on ends with the orders that are
/// under way and is judged by what was done; others do not begin.
pub async fn compare_watched(
    plan: &Plan,
    watcher: &dyn Watcher,
    stop: &CancellationToken,
) -> anyhow::Result<Report> {
    let command = Some(plan.command_line());
    if plan.store == StoreKind::Postgres && !Postgres::is_installed() {
        let not_run = |strategy: &StrategyName| NotRun {
            strategy: *strategy,
            reason: "the store, PostgreSQL, is not installed".into(),
            install: Some(INSTALL_POSTGRES.into()),
        };
        let not_run = plan.strategies.iter().map(not_run).collect();
        return Ok(Report { command, ..Report::new(Vec::new(), not_run) });
    }
    let mut not_run: Vec<_> = plan.strategies.iter().filter_map(|strategy| obstacle(*strategy)).collect();
    let is_run = |strategy: &StrategyName| obstacle(*strategy).is_none();
    let strategies: Vec<_> = plan.strategies.iter().copied().filter(is_run).collect();
    let suite = Suite { watcher, stop };
    let mut control = None;
    if plan.control && !strategies.is_empty() && !strategies.contains(&StrategyName::None) {
        control = suite.control(plan).await?;
    }
    control.iter().for_each(|run| watcher.ends(run));
    let mut runs = Vec::new();
    for repetition in 0..plan.repeat {
        let seed = plan.scenario.seed.wrapping_add(repetition as u64);
        let scenario = Scenario { seed, ..plan.scenario.clone() };
        let mut ended = Vec::new();
        for strategy in &strategies {
            let Some(run) = suite.run(*strategy, plan, &scenario).await? else {
                not_run.push(NotRun::stopped(*strategy));
                continue;
            };
            watcher.ends(&run);
            if plan.repeat > 1 {
                eprintln!(
                    "{} of {}: {strategy} {}, {} orders, {} faults",
                    repetition + 1,
                    plan.repeat,
                    run.verdict,
                    run.accepted,
                    run.faults.len()
                );
            }
            ended.push(run);
        }
        judge_sensitivity(&mut ended, control.as_ref());
        runs.extend(ended);
        if stop.is_cancelled() {
            break;
        }
    }
    runs.extend(control);
    Ok(Report { command, stopped: stop.is_cancelled(), ..Report::new(runs, not_run) })
}

/// Runs that were asked for together.
struct Suite<'a> {
    watcher: &'a dyn Watcher,
    stop: &'a CancellationToken,
}

impl Suite<'_> {
    /// The run without a lock. However long the others are, it is short.
    async fn control(&self, plan: &Plan) -> anyhow::Result<Option<RunReport>> {
        let plan = plan.as_control();
        let progress = Arc::new(Progress::until(self.stop.child_token(), plan.scenario.stock));
        let limit = async {
            while progress.sent() == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep(LONGEST_CONTROL).await;
            progress.stop().cancel();
            std::future::pending().await
        };
        let run = tokio::select! {
            run = self.run_with(StrategyName::None, &plan, &plan.scenario, &progress) => run?,
            never = limit => never,
        };
        let (is_control, expected, stopped) = (true, Verdict::Violated, self.stop.is_cancelled());
        Ok(run.map(|run| RunReport { is_control, expected, stopped, ..run }))
    }

    /// One run; `None` when it was stopped before its first order.
    async fn run(
        &self,
        strategy: StrategyName,
        plan: &Plan,
        scenario: &Scenario,
    ) -> anyhow::Result<Option<RunReport>> {
        let progress = Arc::new(Progress::until(self.stop.clone(), scenario.stock));
        self.run_with(strategy, plan, scenario, &progress).await
    }

    async fn run_with(
        &self,
        strategy: StrategyName,
        plan: &Plan,
        scenario: &Scenario,
        progress: &Arc<Progress>,
    ) -> anyhow::Result<Option<RunReport>> {
        if self.stop.is_cancelled() {
            return Ok(None);
        }
        self.watcher.begins(strategy, scenario, progress);
        let run = in_laboratory(strategy, plan, scenario, progress).await;
        run.with_context(|| format!("the run under {strategy} broke off, with seed {}", scenario.seed))
    }
}

impl Plan {
    /// The plan of the run without a lock: the same load, for a while, and nothing is broken.
    fn as_control(&self) -> Self {
        let mut plan = self.clone();
        plan.faults = Schedule::default();
        // What is said of other locks, and a guard, it cannot have.
        let means_none = |key: &str| !key.starts_with("lock.") && key != "checkout.guard";
        plan.overrides.retain(|(key, _)| means_none(key));
        if let Amount::For(time) = plan.scenario.amount
            && time > LONGEST_CONTROL
        {
            plan.scenario.amount = Amount::For(LONGEST_CONTROL);
            let sold_out_by = LONGEST_CONTROL - LONGEST_CONTROL / 5;
            plan.scenario.topped_up = plan.scenario.topped_up.map(|until| until.min(sold_out_by));
        }
        plan
    }

    /// How long leases are in the laboratory of the plan.
    pub fn lease(overrides: &[(String, String)]) -> Duration {
        let is_lease = |key: &str| key.ends_with(".lease") || key.ends_with(".session_timeout");
        let set = overrides.iter().filter(|(key, _)| is_lease(key));
        let longest = set.filter_map(|(_, value)| humantime::parse_duration(value).ok()).max();
        longest.unwrap_or(fleet::LEASE)
    }
}

/// Why a strategy cannot be run here, if it cannot.
pub fn obstacle(strategy: StrategyName) -> Option<NotRun> {
    let not_run = |reason: &str, install: &str| NotRun {
        strategy,
        reason: reason.into(),
        install: Some(install.into()),
    };
    match strategy {
        StrategyName::Zookeeper if !Zookeeper::is_installed() => {
            Some(not_run("ZooKeeper is not installed", INSTALL_ZOOKEEPER))
        }
        StrategyName::Redis if !Redis::is_installed() => {
            Some(not_run("Redis is not installed", INSTALL_REDIS))
        }
        _ => None,
    }
}

/// In a suite, what has no lock between its replicas is expected to oversell. The negative control says of all others whether the load was hard enough to find anything.
fn judge_sensitivity(suite: &mut [RunReport], beside: Option<&RunReport>) {
    for run in suite.iter_mut() {
        let is_local = run.strategy == StrategyName::Local && run.replicas > 1;
        if run.strategy == StrategyName::None || is_local {
            run.expected = Verdict::Violated;
        }
    }
    let is_control = |run: &RunReport| run.strategy == StrategyName::None;
    let control = suite.iter().find(|run| is_control(run)).or(beside);
    let control = control.map(|run| Control {
        oversold_units: run.oversold(),
        lost_updates: run.series.as_ref().map_or(0, |series| series.lost_updates),
    });
    for run in suite.iter_mut().filter(|run| !is_control(run)) {
        run.add(sensitive(control));
    }
}

async fn in_laboratory(
    strategy: StrategyName,
    plan: &Plan,
    scenario: &Scenario,
    progress: &Arc<Progress>,
) -> anyhow::Result<Option<RunReport>> {
    let mut fleet_plan = FleetPlan::new(strategy, plan.replicas)?;
    fleet_plan.store = plan.store;
    fleet_plan.overrides.extend(plan.overrides.iter().cloned());
    fleet_plan.proxied = plan.faults.needs_proxies();
    fleet_plan.breakable = plan.faults.needs_breakable_servers();
    fleet_plan.ensemble = plan.faults.needs_ensemble();
    let mut fleet = tokio::select! {
        fleet = Fleet::start(fleet_plan) => fleet?,
        () = progress.stop().cancelled() => return Ok(None),
    };
    let clients = fleet.clients().to_vec();
    let sampler = Sampler::start(fleet.roster());
    let mut run = if plan.faults.is_empty() {
        run(&clients, scenario, progress, Faults::None).await
    } else {
        let mut injector = Injector::new(&mut fleet, &plan.faults, scenario.seed);
        run(&clients, scenario, progress, Faults::Injected(&mut injector)).await
    };
    if let Ok(run) = &mut run {
        run.resources = sampler.finish();
    }
    let casualties = fleet.casualties();
    if !casualties.is_empty() || run.is_err() {
        let logs = fleet.keep_logs();
        let place = format!("the replicas' logs are in {}", logs.display());
        let mut run = run.with_context(|| format!("{}\n{place}", casualties.join("\n")))?;
        // Whatever else it has shown stands.
        run.add(survived(&[casualties, vec![place]].concat()));
        return Ok(Some(run));
    }
    match (fleet.stop().await, &mut run) {
        (Err(error), Ok(run)) => run.add(survived(&[format!("{error:#}")])),
        (stopped, _) => stopped?,
    }
    run.map(Some)
}

/// Whether all replicas lived, but for those that were killed, and stopped when they were asked to.
fn survived(crashed: &[String]) -> Check {
    let (status, detail) = match crashed.is_empty() {
        true => (Status::Pass, "no replica ended or fell silent by itself".into()),
        false => (Status::Fail, crashed.join("\n")),
    };
    Check { name: CheckName::ReplicasSurvived, status, detail }
}

/// What is going to be broken while a run goes on.
pub enum Faults<'a, 'f> {
    /// Nothing.
    None,
    /// Something, by somebody else, at times that are not known here.
    Elsewhere,
    /// These, by somebody else.
    Declared(Vec<Broken>),
    /// Nothing, but slow clients come.
    SlowClients,
    /// What an injector breaks.
    Injected(&'a mut Injector<'f>),
}

/// Fires a scenario at the replicas behind `clients`, at a product made for it, and judges what it left.
pub async fn run(
    clients: &[Client],
    scenario: &Scenario,
    progress: &Arc<Progress>,
    faults: Faults<'_, '_>,
) -> anyhow::Result<RunReport> {
    let info = one_configuration(clients).await?;
    let sku = format!("hair-dryer-{}", Uuid::new_v4());
    make_product(clients, &sku, scenario.stock).await?;
    let mut before = metrics(clients).await;
    let lease = info.lease_ms.map(Duration::from_millis);
    let bar = TerminalBar::show(&info.strategy, progress, scenario.orders());
    let firing = runner::run(clients, &sku, scenario, progress);
    let (mut marks, mut spans, mut holds) = (Vec::new(), Vec::new(), Vec::new());
    let (mut killed_unread, mut crashed) = (0, None::<Vec<String>>);
    let mut broken = FaultEvidence::None;
    let record = match faults {
        Faults::None => firing.await,
        Faults::Elsewhere => {
            broken = FaultEvidence::Unknown;
            firing.await
        }
        Faults::Declared(declared) => {
            broken = FaultEvidence::Known { broken: declared, missed: Vec::new() };
            firing.await
        }
        Faults::SlowClients => {
            let mut slow_clients = JoinSet::new();
            clients.iter().for_each(|client| send_slowly(client, &mut slow_clients));
            firing.await
        }
        Faults::Injected(injector) => {
            let record = injector.during(&sku, lease, firing).await?;
            marks = injector.marks().to_vec();
            broken = FaultEvidence::Known {
                broken: marks.iter().map(FaultMark::broken).collect(),
                // What a stopped run has not come to is not held against it.
                missed: injector.missed(progress.stop().is_cancelled()),
            };
            for life in injector.lives() {
                // The next life counts from nothing.
                spans.push((std::mem::take(&mut before[life.replica]), life.metrics.clone()));
                killed_unread += usize::from(life.holds.is_none());
                holds.extend(life.holds.clone());
            }
            crashed = Some(injector.crashed().to_vec());
            record
        }
    };
    drop(bar);
    let seconds = record.took.as_secs_f64();
    let generator_seconds = record.processor_time.as_secs_f64();
    let circumstances = Circumstances {
        sku,
        initial_stock: scenario.stock,
        timeout: scenario.timeout,
        lease,
        faults: broken,
        of_killed: holds,
        killed_unread,
    };
    let evidence = collector::collect(clients, circumstances, record).await;
    spans.extend(before.into_iter().zip(metrics(clients).await));
    let lock = LockFigures::between(&spans);
    let mut report = RunReport::new(scenario, clients.len(), &info, &evidence, lock, seconds);
    report.generator_seconds = generator_seconds;
    report.faults = marks;
    report.stopped = progress.stop().is_cancelled();
    report.series = Some(Series::of(&evidence, seconds));
    if let Some(crashed) = crashed {
        report.add(survived(&crashed));
    }
    Ok(report)
}

/// Makes a product on the first replica, and sees to it that all the others sell the same one.
async fn make_product(clients: &[Client], sku: &str, stock: i64) -> anyhow::Result<()> {
    clients[0]
        .create_product(sku, "Hair dryer", stock)
        .await
        .context("cannot make a product to sell; the load generator needs the service's admin.token")?;
    for client in clients {
        let seen = client.product(sku).await;
        let same = seen.as_ref().is_ok_and(|product| product.stock == stock && product.version == 0);
        let what = seen.map_or_else(|error| error.to_string(), |product| format!("{product:?}"));
        ensure!(
            same,
            "{} and {} do not share a store: what was made on the first is not on the second ({what})",
            clients[0].base(),
            client.base()
        );
    }
    Ok(())
}

/// What each replica has counted; empty for one that does not answer: what a dead one counted died with it.
async fn metrics(clients: &[Client]) -> Vec<String> {
    let mut metrics = Vec::new();
    for client in clients {
        metrics.push(client.metrics().await.unwrap_or_default());
    }
    metrics
}

/// The replicas must be of one configuration, or the verdict would be on none.
async fn one_configuration(clients: &[Client]) -> anyhow::Result<Info> {
    let mut infos = Vec::new();
    for client in clients {
        infos.push(client.info().await?);
    }
    let first = infos.first().context("there is no replica to fire at")?;
    for (client, info) in clients.iter().zip(&infos) {
        let alike = Info { replica: first.replica.clone(), ..info.clone() };
        ensure!(
            alike == *first,
            "{} and {} are not of one configuration: {first:?} and {info:?}",
            clients[0].base(),
            client.base()
        );
    }
    Ok(first.clone())
}
