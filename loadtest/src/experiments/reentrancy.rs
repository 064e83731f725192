//! Who has the lock may enter again.

use std::time::Duration;

use lab::Lab;
use order_service::config::{LeaseTime, StoreSection};
use order_service::lock::{DatabaseLock, Lock, LockError, Mode};
use order_service::store;
use tokio::time::Instant;

use super::event::{EventKind, Party};
use super::fixtures::{Participant, SKU};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "reentrancy",
    title: "Who has the lock may enter again",
    claim: "While it has not released the lock, a process may enter the critical section again.",
    setup: "one process has the lock of the lock table and enters three times; another tries after each step",
    advice: Advice::if_reproduced(
        "Count the entries of each owner and release with the last exit. Simpler still: take the lock \
         in one place only, and you need no re-entry.",
    ),
    needs: &[],
    run: |timeline| Box::pin(run(timeline)),
};

/// How long another tries while the lock is held.
const SHORTLY: Duration = Duration::from_millis(100);

/// How long it tries when it must have it, however busy the machine is.
const PATIENTLY: Duration = Duration::from_secs(10);

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let lab = Lab::new()?;
    let url = format!("sqlite://{}", lab.file("stocklock.db").display());
    let section = StoreSection { url, ..StoreSection::default() };
    store::connect(&section).await?.close().await;
    let lease = LeaseTime::For(Duration::from_secs(10));
    let lock = DatabaseLock::connect(&section, lease, "the holder").await?;
    let other = DatabaseLock::connect(&section, lease, "another").await?;

    let mut observation = Observation::of(timeline);
    let timeline = &observation.timeline;
    let [holder, another] =
        ["the holder", "another"].map(|name| Participant::new(timeline, name, "lock table"));
    let at_holder = |label: &str, what: &str| {
        timeline.mark(EventKind::Note, &Party::holder("the holder"), label, what);
    };
    let first = holder.acquire(&lock, Mode::Exclusive).await?;
    let asked = Instant::now();
    let second = first.enter();
    let third = second.enter();
    let entered = asked.elapsed();
    at_holder("enters twice more", "the holder has entered twice more, without waiting");
    let records = lock.holders().await?.len();
    let (label, what) = (format!("{records} record"), format!("the lock table holds {records} record"));
    timeline.mark(EventKind::Note, &Party::lock("lock table"), &label, what);

    let mut kept_out = Vec::new();
    kept_out.push(try_for(SHORTLY, &other, &another).await?);
    second.release().await;
    at_holder("leaves once", "the holder has left once");
    kept_out.push(try_for(SHORTLY, &other, &another).await?);
    first.release().await;
    at_holder("leaves twice", "the holder has left twice");
    kept_out.push(try_for(SHORTLY, &other, &another).await?);
    holder.release(third).await;
    let free_in_the_end = !try_for(PATIENTLY, &other, &another).await?;
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
async fn try_for(time: Duration, other: &DatabaseLock, participant: &Participant) -> anyhow::Result<bool> {
    participant.asks(Mode::Exclusive);
    match other.acquire(SKU, Mode::Exclusive, Instant::now() + time).await {
        Ok(lease) => {
            participant.has(Mode::Exclusive);
            participant.release(lease).await;
            Ok(false)
        }
        Err(LockError::Timeout) => {
            participant.is_kept_out();
            Ok(true)
        }
        Err(error) => Err(error.into()),
    }
}
