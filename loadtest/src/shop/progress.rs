//! How far a load has come: written by the runs, read by whoever shows it.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::buyer::Outcome;
use super::load::Arrival;
use super::report::ShopRun;

/// The progress of a load, and how to end it early.
#[derive(Debug, Default)]
pub struct ShopProgress {
    stop: CancellationToken,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    now: Option<Now>,
    runs: Vec<ShopRun>,
    /// How many of them were told on a terminal.
    told: usize,
}

/// The run that goes on.
#[derive(Debug, Clone)]
pub struct Now {
    /// How buyers come.
    pub arrival: Arrival,
    /// Purchases that will be tried.
    pub purchases: usize,
    /// Units in stock at the beginning.
    pub stock: i64,
    /// Purchases that were confirmed,
    pub bought: usize,
    /// refused for want of stock,
    pub refused: usize,
    /// and answered otherwise or not at all.
    pub unknown: usize,
}

impl Now {
    /// Purchases that are over.
    pub fn done(&self) -> usize {
        self.bought + self.refused + self.unknown
    }
}

impl ShopProgress {
    /// The progress of a load that begins no purchase any more once `stop` is cancelled.
    pub fn until(stop: CancellationToken) -> Self {
        Self { stop, inner: Mutex::default() }
    }

    /// Cancelled to end the load early: what was done is judged.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// The run that goes on, if one does.
    pub fn now(&self) -> Option<Now> {
        self.inner().now.clone()
    }

    /// The runs that are over.
    pub fn runs(&self) -> Vec<ShopRun> {
        self.inner().runs.clone()
    }

    pub(super) fn begins(&self, arrival: Arrival, purchases: usize, stock: i64) {
        let now = Now { arrival, purchases, stock, bought: 0, refused: 0, unknown: 0 };
        self.inner().now = Some(now);
    }

    pub(super) fn counts(&self, outcome: &Outcome) {
        let mut inner = self.inner();
        let Some(now) = &mut inner.now else { return };
        match outcome {
            Outcome::Bought => now.bought += 1,
            Outcome::Refused => now.refused += 1,
            Outcome::Unknown { .. } => now.unknown += 1,
        }
    }

    pub(super) fn ends(&self, run: ShopRun) {
        let mut inner = self.inner();
        inner.now = None;
        inner.runs.push(run);
    }

    /// A line for each run that is over and was not told yet.
    fn tell_runs(&self, bar: &ProgressBar) {
        let mut inner = self.inner();
        for run in &inner.runs[inner.told..] {
            let line = run.in_a_line();
            if bar.is_hidden() { eprintln!("{line}") } else { bar.println(line) }
        }
        inner.told = inner.runs.len();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds this")
    }
}

/// A bar on a terminal, and a line for each run that is over. Its drop removes the bar.
pub struct ShopBar {
    bar: ProgressBar,
    progress: Arc<ShopProgress>,
    task: JoinHandle<()>,
}

impl ShopBar {
    /// Shows the progress.
    pub fn show(progress: &Arc<ShopProgress>) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = if is_terminal { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let template = "{prefix:12} {wide_bar} {pos} of {len} purchases, {msg}";
        bar.set_style(ProgressStyle::with_template(template).expect("the template is well formed"));
        let (shown, watched) = (bar.clone(), Arc::clone(progress));
        let task = tokio::spawn(async move {
            loop {
                watched.tell_runs(&shown);
                if let Some(now) = watched.now() {
                    shown.set_length(now.purchases as u64);
                    shown.set_prefix(now.arrival.to_string());
                    shown.set_position(now.done() as u64);
                    let Now { bought, refused, unknown, .. } = now;
                    let unclear = if unknown > 0 { format!(", {unknown} UNKNOWN") } else { String::new() };
                    shown.set_message(format!("{bought} bought, {refused} refused{unclear}"));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Self { bar, progress: Arc::clone(progress), task }
    }
}

impl Drop for ShopBar {
    fn drop(&mut self) {
        self.task.abort();
        self.progress.tell_runs(&self.bar);
        self.bar.finish_and_clear();
    }
}
