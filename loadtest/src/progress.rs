//! How far a run has come: counters that the runner writes and anybody may read.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

/// The counters of a run.
#[derive(Debug, Default)]
pub struct Progress {
    sent: AtomicU64,
    done: AtomicU64,
    sold: AtomicU64,
}

impl Progress {
    /// Attempts that were sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Attempts that have ended.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Orders that were confirmed.
    pub fn sold(&self) -> u64 {
        self.sold.load(Ordering::Relaxed)
    }

    pub(crate) fn count_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_done(&self, sold: bool) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.sold.fetch_add(u64::from(sold), Ordering::Relaxed);
    }
}

/// A bar on a terminal, nothing elsewhere. Its drop removes it.
pub struct Bar {
    bar: ProgressBar,
    task: JoinHandle<()>,
}

impl Bar {
    /// Shows `progress` towards `orders`, if that is known.
    pub fn show(name: &str, progress: &Arc<Progress>, orders: Option<u64>) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            orders.map_or_else(ProgressBar::new_spinner, ProgressBar::new)
        } else {
            ProgressBar::hidden()
        };
        let template = "{prefix:12} {wide_bar} {pos} of {len} orders, {msg}";
        bar.set_style(ProgressStyle::with_template(template).expect("the template is well formed"));
        bar.set_prefix(name.to_owned());
        let (shown, progress) = (bar.clone(), Arc::clone(progress));
        let task = tokio::spawn(async move {
            loop {
                shown.set_position(progress.done());
                shown.set_message(format!("{} sold", progress.sold()));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Self { bar, task }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}
