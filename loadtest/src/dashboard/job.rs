//! Carries out one plan or one experiment at a time.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use order_service::config::StrategyName;
use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval};

use super::archive::Kept;
use super::form::Form;
use super::shop::ShopForm;
use super::state::{Dashboard, Live, SAMPLED_MS, ShopJob, Stage, Stop, Suite, Trials};
use crate::client::Client;
use crate::compare::{Plan, Watcher, compare_watched, judge_sensitivity};
use crate::experiments::{self, Experiment, ExperimentReport, Recording};
use crate::faults::FaultJournal;
use crate::progress::Progress;
use crate::report::{NotRun, Report, RunReport};
use crate::scenario::Scenario;
use crate::shop::{self, Description, Load, ShopProgress, ShopReport};

/// Something goes on already.
#[derive(Debug)]
pub(super) struct Busy;

/// Begins a suite.
pub(super) fn run(dashboard: &Arc<Dashboard>, form: Form, plan: Plan) -> Result<(), Busy> {
    let stop = begin(dashboard)?;
    let at = Timestamp::now();
    let id = id_of(at);
    let report = Report { command: Some(plan.command_line()), ..Report::new(Vec::new(), Vec::new()) };
    dashboard.lock().suite = Some(Suite { id, at, form, report, live: None, stage: Stage::Running });
    dashboard.notify();
    let watched = Arc::clone(dashboard);
    in_thread(dashboard, move || async move {
        let watcher = Watched(Arc::clone(&watched));
        let outcome = tokio::select! {
            () = stop.at_once.cancelled() => None,
            outcome = compare_watched(&plan, &watcher, &stop.gently) => Some(outcome),
            () = sample(&watched) => None,
        };
        conclude(&watched, outcome);
    });
    Ok(())
}

/// Begins experiments, one after the other.
pub(super) fn experiments(dashboard: &Arc<Dashboard>, chosen: Vec<Experiment>) -> Result<(), Busy> {
    let stop = begin(dashboard)?;
    let waiting = chosen.iter().map(|experiment| experiment.name).collect();
    // The first one shows at once, before its thread has begun.
    let running = chosen.first().map(|experiment| experiment.name);
    dashboard.lock().trials = Trials { running, latest: running, waiting, ..Trials::default() };
    dashboard.notify();
    let watched = Arc::clone(dashboard);
    in_thread(dashboard, move || async move {
        for experiment in chosen {
            let recording = watched.lock().trials.begin(experiment.name);
            let outcome = tokio::select! {
                () = stop.gently.cancelled() => return,
                outcome = experiments::run_recorded(experiment, &recording) => outcome,
                () = show_recorded(&watched, &recording) => return,
            };
            conclude_experiment(&watched, experiment.name, outcome);
        }
    });
    Ok(())
}

fn conclude_experiment(dashboard: &Dashboard, name: &'static str, outcome: anyhow::Result<ExperimentReport>) {
    let mut inner = dashboard.lock();
    let kept = outcome.and_then(|report| inner.archive.keep_experiment(report));
    if let Err(error) = kept {
        inner.trials.broken.push((name, format!("{error:#}")));
    }
    inner.trials.running = None;
    drop(inner);
    dashboard.notify();
}

/// Tells pages to look again whenever something was recorded, for ever.
async fn show_recorded(dashboard: &Dashboard, recording: &Recording) {
    let mut ticks = interval(Duration::from_millis(SAMPLED_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut shown = None;
    loop {
        ticks.tick().await;
        if shown.replace(recording.len()) != Some(recording.len()) {
            dashboard.notify();
        }
    }
}

/// Begins a load on a shop that is not ours; with `dry_run`, no more than the rehearsal.
pub(super) fn shop(
    dashboard: &Arc<Dashboard>,
    form: ShopForm,
    (description, load): (Description, Load),
    dry_run: bool,
) -> Result<(), Busy> {
    let stop = begin(dashboard)?;
    let at = Timestamp::now();
    let progress = Arc::new(ShopProgress::until(stop.gently.clone()));
    dashboard.lock().shop = Some(ShopJob {
        id: id_of(at),
        form,
        rehearsal: None,
        fits: None,
        faults: Vec::new(),
        progress: Arc::clone(&progress),
        report: None,
        stage: Stage::Running,
    });
    dashboard.notify();
    let watched = Arc::clone(dashboard);
    in_thread(dashboard, move || async move {
        let fire = async {
            let rehearsal = shop::rehearse(&description, &load).await?;
            let fits = rehearsal.faults.is_empty();
            if let Some(job) = &mut watched.lock().shop {
                (job.rehearsal, job.fits) = (Some(rehearsal.to_string()), Some(fits));
                job.faults = rehearsal.faults;
            }
            if dry_run || !fits || progress.stop().is_cancelled() {
                return Ok(None);
            }
            shop::run(&description, &load, &progress).await.map(Some)
        };
        let outcome = tokio::select! {
            () = stop.at_once.cancelled() => None,
            outcome = fire => Some(outcome),
            () = sample(&watched) => None,
        };
        conclude_shop(&watched, outcome);
    });
    Ok(())
}

fn conclude_shop(dashboard: &Dashboard, outcome: Option<anyhow::Result<Option<ShopReport>>>) {
    let mut inner = dashboard.lock();
    let inner = &mut *inner;
    let Some(job) = &mut inner.shop else { return };
    job.stage = match outcome {
        Some(Ok(None)) => Stage::Finished,
        Some(Ok(Some(report))) => {
            let kept = inner.archive.keep_shop(&job.id, &report);
            let is_stopped = report.stopped;
            job.report = Some(report);
            match kept {
                Err(error) => Stage::Broken(format!("the runs are over and could not be kept: {error:#}")),
                Ok(()) if is_stopped => Stage::Stopped,
                Ok(()) => Stage::Finished,
            }
        }
        Some(Err(error)) => Stage::Broken(format!("{error:#}")),
        None => {
            job.fits = None;
            Stage::Abandoned
        }
    };
}

/// Stops what goes on, if anything does: a run ends with what is under way, and is judged by what was done.
/// Asked twice, it ends at once, without a verdict. Its processes end with it.
pub(super) fn stop(dashboard: &Dashboard) {
    if let Some(stop) = &dashboard.lock().stop {
        if stop.gently.is_cancelled() {
            stop.at_once.cancel();
        }
        stop.gently.cancel();
    }
    dashboard.notify();
}

/// Stops what goes on when it is dropped, and waits for the end.
pub(super) struct StopOnDrop(pub(super) Arc<Dashboard>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        stop(&self.0);
        stop(&self.0);
        // What is dropped leaves at once; whoever holds on must not keep the program from its end.
        for _ in 0..100 {
            if !self.0.lock().is_busy() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The name of what began at a time.
fn id_of(at: Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%S%3fZ").to_string()
}

fn begin(dashboard: &Dashboard) -> Result<Stop, Busy> {
    let mut inner = dashboard.lock();
    if inner.is_busy() {
        return Err(Busy);
    }
    let stop = Stop::default();
    inner.stop = Some(stop.clone());
    Ok(stop)
}

/// Experiments stay on the thread they begin on, so each job has one. What they spawn runs with all the rest.
fn in_thread<Job: Future<Output = ()>>(
    dashboard: &Arc<Dashboard>,
    job: impl FnOnce() -> Job + Send + 'static,
) {
    let (handle, dashboard) = (Handle::current(), Arc::clone(dashboard));
    thread::spawn(move || {
        // Also when the job panics, the next one may begin.
        let _over = Over(dashboard);
        handle.block_on(job());
    });
}

struct Over(Arc<Dashboard>);

impl Drop for Over {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.stop = None;
        inner.trials.running = None;
        inner.trials.waiting.clear();
        if let Some(suite) = &mut inner.suite
            && suite.stage == Stage::Running
        {
            suite.live = None;
            suite.stage = Stage::Broken("the run panicked; the dashboard's output says where".into());
        }
        if let Some(job) = &mut inner.shop
            && job.stage == Stage::Running
        {
            job.stage = Stage::Broken("the load panicked; the dashboard's output says where".into());
        }
        drop(inner);
        self.0.notify();
    }
}

/// Samples the run that goes on, for ever.
async fn sample(dashboard: &Dashboard) {
    let mut ticks = interval(Duration::from_millis(SAMPLED_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        if let Some(live) = dashboard.lock().suite.as_mut().and_then(|suite| suite.live.as_mut()) {
            live.sample();
        }
        dashboard.notify();
    }
}

fn conclude(dashboard: &Dashboard, outcome: Option<anyhow::Result<Report>>) {
    let mut inner = dashboard.lock();
    let inner = &mut *inner;
    let Some(suite) = &mut inner.suite else { return };
    suite.live = None;
    suite.stage = match outcome {
        Some(Ok(report)) => {
            let is_stopped = report.stopped;
            suite.report = report;
            if is_stopped { Stage::Stopped } else { Stage::Finished }
        }
        Some(Err(error)) => Stage::Broken(format!("{error:#}")),
        None => {
            conclude_early(suite);
            Stage::Abandoned
        }
    };
    if suite.report.runs.is_empty() {
        return;
    }
    let kept = Kept { at: suite.at, form: suite.form.query(), report: suite.report.clone() };
    if let Err(error) = inner.archive.keep(&suite.id, &kept) {
        suite.stage = Stage::Broken(format!("the runs are over and could not be kept: {error:#}"));
    }
}

/// Judges what there is of a suite that was stopped at once, as the whole would have been.
fn conclude_early(suite: &mut Suite) {
    let report = &mut suite.report;
    report.stopped = true;
    let control = report.runs.iter().position(|run| run.is_control).map(|number| report.runs.remove(number));
    judge_sensitivity(&mut report.runs, control.as_ref());
    for strategy in &suite.form.strategies {
        if !report.runs.iter().any(|run| run.strategy == *strategy) {
            report.not_run.push(NotRun::stopped(*strategy));
        }
    }
    report.runs.extend(control);
}

struct Watched(Arc<Dashboard>);

impl Watcher for Watched {
    fn begins(&self, strategy: StrategyName, scenario: &Scenario, progress: &Arc<Progress>) {
        if let Some(suite) = &mut self.0.lock().suite {
            suite.live = Some(Live::new(strategy, scenario.clone(), Arc::clone(progress)));
        }
        self.0.notify();
    }

    fn fires(&self, clients: &[Client], faults: &FaultJournal) {
        if let Some(live) = self.0.lock().suite.as_mut().and_then(|suite| suite.live.as_mut()) {
            live.follow(clients, faults);
        }
    }

    fn ends(&self, run: &RunReport) {
        if let Some(suite) = &mut self.0.lock().suite {
            suite.live = None;
            suite.report.runs.push(run.clone());
            // It was run first, and is shown last.
            suite.report.runs.sort_by_key(|run| run.is_control);
        }
        self.0.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::run;
    use crate::verdict::{Check, CheckName, Status, Verdict};

    #[test]
    fn a_suite_that_is_stopped_at_once_is_judged_like_a_whole_one() {
        let mut control = run(StrategyName::None, 3, Verdict::Violated);
        (control.is_control, control.oversold_units) = (true, Some(0));
        let mut local = run(StrategyName::Local, 3, Verdict::Violated);
        local.add(Check {
            name: CheckName::NotOversold,
            status: Status::Fail,
            detail: "oversold by 1".into(),
        });
        let runs = vec![run(StrategyName::Redis, 3, Verdict::Correct), local, control];
        let mut form = Form::default();
        form.strategies = vec![StrategyName::Redis, StrategyName::Local, StrategyName::Row];
        let mut suite = Suite {
            id: String::new(),
            at: Timestamp::UNIX_EPOCH,
            form,
            report: Report::new(runs, Vec::new()),
            live: None,
            stage: Stage::Running,
        };
        conclude_early(&mut suite);
        let report = &suite.report;
        let of = |run: &RunReport| (run.strategy.to_string(), run.verdict, run.expected);
        // The load breaks nothing without a lock either: so nobody knows whether Redis has done anything.
        assert_eq!(of(&report.runs[0]), ("redis".into(), Verdict::Inconclusive, Verdict::Correct));
        assert_eq!(of(&report.runs[1]), ("local".into(), Verdict::Violated, Verdict::Violated));
        assert!(report.runs[2].is_control && report.stopped);
        assert_eq!(report.not_run.iter().map(|one| one.strategy).collect::<Vec<_>>(), [StrategyName::Row]);
    }
}
