//! The same scenario under several strategies, each in a laboratory of its own, with a negative control.

mod command;
mod length;
mod setting;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lab::Setup;
use order_service::command_line::in_words;
use order_service::config::StrategyName;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::faults::{FaultJournal, Injector, Schedule};
use crate::fleet::{self, Fleet, FleetPlan, StoreKind};
use crate::progress::Progress;
use crate::report::{NotRun, Report, RunReport};
use crate::resources::Sampler;
use crate::run::{FaultSource, fire, survived};
use crate::scenario::{Amount, Scenario};
use crate::verdict::{Control, Verdict, sensitive};

pub use length::{Length, ORDERS};
pub use setting::setting;

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
    /// On how many Redis servers, of which a majority has the lock, under `redis`.
    pub redis_servers: usize,
    /// How often.
    pub repeat: usize,
    /// Under which load. Each repetition has a seed of its own.
    pub scenario: Scenario,
    /// Further keys of the service's configuration.
    pub overrides: Vec<(String, String)>,
    /// What is broken meanwhile.
    pub faults: Schedule,
    /// Whether the same load is fired at a shop without a lock, too, where `none` is not among the
    /// strategies: whether it breaks that one says what the other verdicts are worth.
    pub control: bool,
}

/// What is notified of a suite while it goes on.
pub trait Watcher {
    /// A run begins; `progress` tells how far it has come.
    fn begins(&self, strategy: StrategyName, scenario: &Scenario, progress: &Arc<Progress>);
    /// Its replicas are there, and its first order comes soon. `faults` tells what is broken meanwhile.
    fn fires(&self, clients: &[Client], faults: &FaultJournal);
    /// A run has ended. What only the suite can say of it is not known yet.
    fn ends(&self, run: &RunReport);
}

/// Without a watcher.
impl Watcher for () {
    fn begins(&self, _: StrategyName, _: &Scenario, _: &Arc<Progress>) {}
    fn fires(&self, _: &[Client], _: &FaultJournal) {}
    fn ends(&self, _: &RunReport) {}
}

/// Runs the plan in a laboratory; a fresh store and fresh replicas for each run.
pub async fn compare(plan: &Plan) -> anyhow::Result<Report> {
    compare_watched(plan, &(), &CancellationToken::new()).await
}

/// Runs the plan and notifies `watcher`. A strategy whose run breaks off is listed among those that were not
/// run, unless no other was. When `stop` is cancelled, the run that goes on ends with the orders
/// that are under way and is judged by what was done; others do not begin.
pub async fn compare_watched(
    plan: &Plan,
    watcher: &dyn Watcher,
    stop: &CancellationToken,
) -> anyhow::Result<Report> {
    let command = Some(plan.command_line());
    let mut not_run = Vec::new();
    let mut strategies = Vec::new();
    for strategy in &plan.strategies {
        match obstacle(*strategy, plan.store) {
            Some(obstacle) => not_run.push(obstacle),
            None => strategies.push(*strategy),
        }
    }
    let suite = Suite { watcher, stop };
    let mut control = None;
    if plan.control && !strategies.is_empty() && !strategies.contains(&StrategyName::None) {
        control = suite.control(plan).await?;
    }
    control.iter().for_each(|run| watcher.ends(run));
    let (mut runs, mut broken_off) = (Vec::new(), None);
    for repetition in 0..plan.repeat {
        let seed = plan.scenario.seed.wrapping_add(repetition as u64);
        let scenario = Scenario { seed, ..plan.scenario.clone() };
        let mut ended = Vec::new();
        for strategy in &strategies {
            let run = match suite.run(*strategy, plan, &scenario).await {
                Ok(Some(run)) => run,
                Ok(None) => {
                    not_run.push(NotRun::stopped(*strategy));
                    continue;
                }
                // What the others have shown, or will, stands.
                Err(error) => {
                    not_run.push(NotRun::broken_off(*strategy, in_words(&error)));
                    broken_off.get_or_insert(error);
                    continue;
                }
            };
            watcher.ends(&run);
            ended.push(run);
        }
        judge_sensitivity(&mut ended, control.as_ref());
        runs.extend(ended);
        if stop.is_cancelled() {
            break;
        }
    }
    if let Some(error) = broken_off.filter(|_| runs.is_empty()) {
        return Err(error);
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
        let run = in_laboratory(strategy, plan, scenario, progress, self.watcher).await;
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
        let is_lease = |key: &str| StrategyName::ALL.iter().any(|strategy| strategy.lease_key() == Some(key));
        let set = overrides.iter().filter(|(key, _)| is_lease(key));
        let longest = set.filter_map(|(_, value)| humantime::parse_duration(value).ok()).max();
        longest.unwrap_or(fleet::LEASE)
    }
}

/// Why a strategy cannot be run here on this store, if it cannot: a server is not installed.
pub fn obstacle(strategy: StrategyName, store: StoreKind) -> Option<NotRun> {
    let missing = fleet::servers_of(strategy, store).find(|kind| !kind.is_installed())?;
    Some(NotRun {
        strategy,
        reason: format!("{} is not installed", missing.title()),
        install: Some(missing.install().into()),
        broke_off: false,
    })
}

/// In a suite, what has neither a lock between its replicas nor a guard is expected to oversell. The negative
/// control says of all others whether the load was hard enough to find anything.
pub(crate) fn judge_sensitivity(suite: &mut [RunReport], beside: Option<&RunReport>) {
    for run in suite.iter_mut() {
        if !run.strategy.is_right_on(run.replicas) {
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
    watcher: &dyn Watcher,
) -> anyhow::Result<Option<RunReport>> {
    let mut fleet_plan = FleetPlan::new(strategy, plan.replicas)?;
    fleet_plan.store = plan.store;
    fleet_plan.overrides.extend(plan.overrides.iter().cloned());
    fleet_plan.proxied = plan.faults.needs_proxies();
    fleet_plan.setup = Setup {
        is_breakable: plan.faults.needs_breakable_servers(),
        is_ensemble: plan.faults.needs_ensemble(),
        is_linked: plan.faults.needs_ensemble(),
        takes_over: plan.faults.fail_overs(),
        redis_servers: plan.redis_servers,
    };
    let mut fleet = tokio::select! {
        fleet = Fleet::start(fleet_plan) => fleet?,
        () = progress.stop().cancelled() => return Ok(None),
    };
    let clients = fleet.clients().to_vec();
    let sampler = Sampler::start(fleet.processes());
    let mut run = if plan.faults.is_empty() {
        watcher.fires(&clients, &FaultJournal::default());
        fire(&clients, scenario, progress, FaultSource::None).await
    } else {
        let mut injector = Injector::new(&mut fleet, &plan.faults, scenario.seed);
        watcher.fires(&clients, injector.journal());
        fire(&clients, scenario, progress, FaultSource::Injected(&mut injector)).await
    };
    if let Ok(run) = &mut run {
        run.resources = sampler.finish();
    }
    let exited = fleet.exited_replicas();
    if !exited.is_empty() || run.is_err() {
        let logs = fleet.keep_logs();
        let place = format!("the replicas' logs are in {}", logs.display());
        let mut run = run.with_context(|| format!("{}\n{place}", exited.join("\n")))?;
        // Whatever else it has shown stands.
        run.add(survived(&[exited, vec![place]].concat()));
        return Ok(Some(run));
    }
    match (fleet.stop().await, &mut run) {
        (Err(error), Ok(run)) => run.add(survived(&[format!("{error:#}")])),
        (stopped, _) => stopped?,
    }
    run.map(Some)
}
