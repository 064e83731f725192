//! A client goes, and its node with it.

use std::time::{Duration, Instant};

use lab::ServerKind;
use order_service::config::StrategyName;
use order_service::lock::Mode;

use super::fixtures::{Contenders, SKU, Timeline, patiently, recovery, seconds, until_census};
use super::{Experiment, Finding, Observation};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "zookeeper-crash",
    claim: "A client that disconnects loses its ephemeral node: the lock frees itself, no deadlock. (At once \
        on a clean close; after the session timeout on a crash.)",
    setup: "the holder closes its session while another waits; then a replica that has the lock is ended \
        with kill -9 while another waits; sessions of 1 s",
    needs: &[ServerKind::Zookeeper],
    run: || Box::pin(run()),
};

const SESSION: Duration = Duration::from_secs(1);

async fn run() -> anyhow::Result<Observation> {
    let mut observation = Observation::default();
    let closed = clean_close(&mut observation.timeline).await?;
    let crashed = recovery(StrategyName::Zookeeper, &mut observation.timeline).await?;
    observation.figure("from a clean close to the next holder", seconds(closed));
    observation.figure("from kill -9 to the next holder, session of 1 s", seconds(crashed));
    observation.observed = format!(
        "after a clean close the next one had the lock in {}, after a crash in {}",
        seconds(closed),
        seconds(crashed)
    );
    observation.explanation = Some(
        "ZooKeeper cannot tell a crash from a silence either: \"disconnects\" means that the session's \
         time-out has passed without a sign of life, which the server counts in whole ticks. It is an expiry \
         like that of Redis, and renewed like it by heartbeats; only a client that says goodbye is gone at \
         once."
            .into(),
    );
    // The last heartbeat may be a third of the time-out old when the holder dies, and the server looks at its
    // sessions once in a tick.
    let after_timeout = (SESSION / 2..SESSION + Duration::from_secs(1)).contains(&crashed);
    let as_claimed = closed < SESSION / 2 && after_timeout;
    observation.finding = Some(if as_claimed { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}

/// From the holder's goodbye to the next one's having the lock.
async fn clean_close(timeline: &mut Timeline) -> anyhow::Result<Duration> {
    let server = lab::Zookeeper::start().await?;
    let keys = [("lock.zookeeper.session_timeout", "1s")];
    let contenders = Contenders::new(StrategyName::Zookeeper, &server, &keys).await?;
    let (holder, next) = (contenders.join("the holder").await?, contenders.join("the next").await?);
    let lease = holder.acquire(SKU, Mode::Exclusive, patiently()).await?;
    timeline.note("clean close: the holder has the lock");
    let going = async {
        until_census(&*holder, 1, 1).await?;
        let closed = Instant::now();
        drop(lease);
        holder.shutdown().await;
        anyhow::Ok(closed)
    };
    let waiting = async {
        let lease = next.acquire(SKU, Mode::Exclusive, patiently()).await?;
        anyhow::Ok((Instant::now(), lease))
    };
    let (closed, waited) = tokio::join!(going, waiting);
    let (closed, (taken, lease)) = (closed?, waited?);
    timeline.note("the holder has closed its session, and the next one has the lock");
    lease.release().await;
    next.shutdown().await;
    Ok(taken.saturating_duration_since(closed))
}
