//! A server is lost while orders come in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::client::Client;
use crate::progress::Progress;
use crate::report::RunReport;
use crate::run::{self, FaultSource};
use crate::scenario::{Amount, Scenario};

/// What a load saw of it.
pub(in crate::experiments) struct Outage<T> {
    /// The run, judged from the database when it was over.
    pub(in crate::experiments) run: RunReport,
    /// The longest time without a confirmed order.
    pub(in crate::experiments) gap: Duration,
    /// What the breaking answered.
    pub(in crate::experiments) broken: T,
}

/// Fires orders at the replicas for so long, a hundred a second, while `breaking` breaks something.
pub(in crate::experiments) async fn outage<T>(
    clients: &[Client],
    load: Duration,
    progress: &Arc<Progress>,
    breaking: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Outage<T>> {
    let scenario = Scenario {
        buyers: 16,
        amount: Amount::For(load),
        rate: Some(100.0),
        stock: 100_000,
        replays: 0.0,
        timeout: Duration::from_secs(20),
        ..Scenario::default()
    };
    let mut gap = Duration::ZERO;
    let watched = async {
        let (run, broken) =
            tokio::join!(run::fire(clients, &scenario, progress, FaultSource::Elsewhere), breaking);
        anyhow::Ok((run?, broken?))
    };
    let (run, broken) = tokio::select! {
        watched = watched => watched?,
        () = watch(progress, load, &mut gap) => unreachable!("it watches until it is dropped"),
    };
    Ok(Outage { run, gap, broken })
}

/// Keeps the longest time between two confirmed orders, until the load has lasted its time.
async fn watch(progress: &Progress, load: Duration, longest: &mut Duration) {
    while progress.sold() == 0 {
        sleep(Duration::from_millis(2)).await;
    }
    let begun = Instant::now();
    let (mut sold, mut since) = (0, begun);
    while begun.elapsed() < load {
        sleep(Duration::from_millis(2)).await;
        if progress.sold() > sold {
            (sold, since) = (progress.sold(), Instant::now());
        }
        *longest = (*longest).max(since.elapsed());
    }
    std::future::pending::<()>().await;
}
