//! Who has the lock may enter again.

use std::time::Duration;

use lab::Lab;
use order_service::config::{LeaseTime, StoreSection};
use order_service::lock::{DatabaseLock, Lock, LockError, Mode};
use order_service::store;
use tokio::time::Instant;

use super::fixtures::{SKU, Timeline};
use super::{Experiment, Finding, Observation};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "reentrancy",
    claim: "While it has not released the lock, a process may enter the critical section again.",
    setup: "one process has the lock of the lock table and enters three times; another tries after each step",
    needs: &[],
    run: || Box::pin(run()),
};

async fn run() -> anyhow::Result<Observation> {
    let lab = Lab::new()?;
    let url = format!("sqlite://{}", lab.file("stocklock.db").display());
    let section = StoreSection { url, ..StoreSection::default() };
    store::connect(&section).await?.close().await;
    let lease = LeaseTime::For(Duration::from_secs(10));
    let lock = DatabaseLock::connect(&section, lease, "the holder").await?;
    let other = DatabaseLock::connect(&section, lease, "another").await?;

    let mut observation = Observation::default();
    let timeline = &mut observation.timeline;
    let first = lock.acquire(SKU, Mode::Exclusive, Instant::now() + Duration::from_secs(5)).await?;
    timeline.note("the holder has the lock");
    let asked = Instant::now();
    let second = first.enter();
    let third = second.enter();
    let entered = asked.elapsed();
    timeline.note("it has entered twice more, without waiting");
    let records = lock.holders().await?.len();
    timeline.note(format!("the lock table holds {records} record"));

    let mut kept_out = Vec::new();
    kept_out.push(try_once(&other, timeline).await?);
    second.release().await;
    timeline.note("the holder has left once");
    kept_out.push(try_once(&other, timeline).await?);
    first.release().await;
    timeline.note("the holder has left twice");
    kept_out.push(try_once(&other, timeline).await?);
    third.release().await;
    timeline.note("the holder has left for the last time");
    let free_in_the_end = !try_once(&other, timeline).await?;
    lock.shutdown().await;
    other.shutdown().await;

    let kept_out = kept_out.into_iter().all(|kept_out| kept_out);
    observation.figures = vec![
        ("records while entered three times".into(), records.to_string()),
        ("to enter twice more took".into(), format!("{} µs", entered.as_micros())),
    ];
    observation.observed = format!(
        "the holder entered again {}; the other {} until the last exit and {} after it",
        if records == 1 { "on its one record" } else { "with further records" },
        if kept_out { "was kept out" } else { "got in" },
        if free_in_the_end { "got in" } else { "did not get in" }
    );
    let reproduced = records == 1 && kept_out && free_in_the_end;
    observation.finding = Some(if reproduced { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}

/// Returns whether another process is kept out now.
async fn try_once(other: &DatabaseLock, timeline: &mut Timeline) -> anyhow::Result<bool> {
    match other.acquire(SKU, Mode::Exclusive, Instant::now() + Duration::from_millis(100)).await {
        Ok(lease) => {
            timeline.note("another tries, and has the lock");
            lease.release().await;
            Ok(false)
        }
        Err(LockError::Timeout) => {
            timeline.note("another tries, and is kept out");
            Ok(true)
        }
        Err(error) => Err(error.into()),
    }
}
