//! What goes on, and what has come of it. Pages only show it.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;
use maud::Markup;
use order_service::clock::now_ns;
use order_service::config::StrategyName;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::archive::Archive;
use super::follow::Followed;
use super::form::Form;
use super::shop::ShopForm;
use crate::client::Client;
use crate::experiments::Recording;
use crate::faults::FaultJournal;
use crate::progress::Progress;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::series::{Interval, Series};
use crate::shop::{ShopProgress, ShopReport};

/// How often the progress of a run is sampled, in milliseconds.
pub(super) const SAMPLED_MS: u64 = 100;

/// The state of the dashboard.
pub(super) struct Dashboard {
    /// What tells this run of the program from any other.
    pub(super) program: String,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

/// What is behind the lock.
pub(super) struct Inner {
    /// The suite that goes on, or the last one.
    pub(super) suite: Option<Suite>,
    /// The load on a shop that is not ours that goes on, or the last one.
    pub(super) shop: Option<ShopJob>,
    /// The experiments that go on, or the last ones.
    pub(super) trials: Trials,
    /// How to stop what goes on.
    pub(super) stop: Option<Stop>,
    /// Past runs.
    pub(super) archive: Archive,
}

/// The two ways to stop what goes on.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    /// What is under way is waited for, and what was done is judged.
    pub(super) gently: CancellationToken,
    /// At once, without a verdict.
    pub(super) at_once: CancellationToken,
}

/// Experiments that were started together.
#[derive(Debug, Default)]
pub(super) struct Trials {
    /// The one that goes on.
    pub(super) running: Option<&'static str>,
    /// The one that began last.
    pub(super) latest: Option<&'static str>,
    /// Those that are still to come.
    pub(super) waiting: Vec<&'static str>,
    /// What the one that goes on has recorded so far.
    pub(super) recording: Recording,
    /// What broke off, and why.
    pub(super) broken: Vec<(&'static str, String)>,
}

/// Runs that were started together.
pub(super) struct Suite {
    /// Its name in the archive.
    pub(super) id: String,
    /// When it began.
    pub(super) at: Timestamp,
    /// The form that it was started with.
    pub(super) form: Form,
    /// The runs that are over, and what is not run.
    pub(super) report: Report,
    /// The run that goes on.
    pub(super) live: Option<Live>,
    /// How it stands.
    pub(super) stage: Stage,
}

/// A load that was started.
pub(super) struct ShopJob {
    /// Its name in the archive.
    pub(super) id: String,
    /// The form that it was started with.
    pub(super) form: ShopForm,
    /// What the rehearsal showed.
    pub(super) rehearsal: Option<String>,
    /// Whether the description fits, as far as that is known.
    pub(super) fits: Option<bool>,
    /// What does not fit.
    pub(super) faults: Vec<String>,
    /// What the runs count.
    pub(super) progress: Arc<ShopProgress>,
    /// What has come of it.
    pub(super) report: Option<ShopReport>,
    /// How it stands.
    pub(super) stage: Stage,
}

/// How a suite stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// It goes on.
    Running,
    /// It is over.
    Finished,
    /// It was stopped; what was done is judged.
    Stopped,
    /// It was stopped at once: what was running then has no verdict.
    Abandoned,
    /// It broke off, and why.
    Broken(String),
}

/// A run that goes on.
pub(super) struct Live {
    /// Under which strategy.
    pub(super) strategy: StrategyName,
    /// Under which load.
    pub(super) scenario: Scenario,
    /// What the run counts.
    pub(super) progress: Arc<Progress>,
    /// The run so far.
    pub(super) series: Series,
    /// What is broken meanwhile.
    pub(super) faults: FaultJournal,
    /// The charts as they were drawn last, and of which length of the run.
    pub(super) drawn: RefCell<Option<(f64, Markup)>>,
    /// Who has the lock; `None` before the replicas are there, and where there is no lock.
    pub(super) followed: Option<Followed>,
    /// All answers so far.
    pub(super) total: Interval,
    /// Units that were there or were put in stock so far.
    pub(super) supply: i64,
    /// Units that are confirmed and cannot be there.
    pub(super) oversold: i64,
}

impl Dashboard {
    pub(super) fn new(archive: Archive) -> Self {
        let trials = Trials::default();
        let inner = Inner { suite: None, shop: None, trials, stop: None, archive };
        let program = Uuid::new_v4().to_string();
        Self { program, inner: Mutex::new(inner), changed: watch::Sender::new(0) }
    }

    /// The state, to be looked at or changed. Not to be held across an await.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Tells all pages to look again.
    pub(super) fn notify(&self) {
        self.changed.send_modify(|number| *number += 1);
    }

    /// Hears when there is something new to look at.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl Trials {
    /// Begins one of those that were to come. Returns what it is to record into.
    pub(super) fn begin(&mut self, name: &'static str) -> Recording {
        self.waiting.retain(|waiting| *waiting != name);
        (self.running, self.latest) = (Some(name), Some(name));
        self.recording = Recording::default();
        self.recording.clone()
    }
}

impl Inner {
    /// Whether something goes on.
    pub(super) fn is_busy(&self) -> bool {
        self.stop.is_some()
    }

    /// Whether what goes on was asked to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.gently.is_cancelled())
    }
}

impl Live {
    pub(super) fn new(strategy: StrategyName, scenario: Scenario, progress: Arc<Progress>) -> Self {
        let series = Series { interval_ms: SAMPLED_MS as f64, ..Series::default() };
        let supply = scenario.stock;
        let (faults, followed, total) = (FaultJournal::default(), None, Interval::default());
        let drawn = RefCell::default();
        Self { strategy, scenario, progress, series, faults, drawn, followed, total, supply, oversold: 0 }
    }

    /// Follows what is broken, and who has the lock, where there is one.
    pub(super) fn follow(&mut self, clients: &[Client], faults: &FaultJournal) {
        self.faults = faults.clone();
        self.followed = self.strategy.has_lock().then(|| Followed::start(clients, &self.progress));
    }

    /// How long ago the first order could be sent, in milliseconds; `None` before.
    pub(super) fn elapsed_ms(&self) -> Option<f64> {
        let beginning = self.progress.beginning()?;
        Some(now_ns().saturating_sub(beginning.begun_ns) as f64 / 1e6)
    }

    /// For how long buyers have bought, in milliseconds.
    fn bought_for_ms(&self) -> Option<f64> {
        let (beginning, now) = (self.progress.beginning()?, self.progress.ended_ns().unwrap_or_else(now_ns));
        Some(now.saturating_sub(beginning.begun_ns) as f64 / 1e6)
    }

    /// Adds what was answered since the last sample.
    pub(super) fn sample(&mut self) {
        let Some(until_ms) = self.bought_for_ms() else { return };
        let sample = self.progress.sample();
        let interval = Interval { until_ms, ..sample.interval };
        self.total.accepted += interval.accepted;
        self.total.sold_out += interval.sold_out;
        self.total.failed += interval.failed;
        self.total.unknown += interval.unknown;
        self.series.lost_updates = sample.lost_updates;
        self.series.counterexample = sample.counterexample;
        (self.supply, self.oversold) = (sample.supply, sample.oversold);
        match self.series.intervals.last_mut() {
            // The buyers have gone: what is still found of their orders is no time of selling.
            Some(last) if last.until_ms >= until_ms => {
                (last.stock, last.expected) = (interval.stock, interval.expected);
            }
            _ => self.series.push(interval),
        }
    }

    /// Units in confirmed orders.
    pub(super) fn sold(&self) -> i64 {
        self.series.intervals.last().map_or(0, |last| self.supply - last.expected)
    }
}
