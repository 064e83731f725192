//! A client goes, and its node with it.

use std::time::{Duration, Instant};

use lab::ServerKind;
use order_service::config::StrategyName;
use order_service::lock::Mode;

use super::fixtures::{Contenders, Participant, recovery, seconds, until_census};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "zookeeper-crash",
    title: "A client goes, and its node with it",
    claim: "A client that disconnects loses its ephemeral node: the lock frees itself, no deadlock. (At once \
        on a clean close; after the session timeout on a crash.)",
    setup: "the holder closes its session while another waits; then a replica that has the lock is ended \
        with kill -9 while another waits; sessions of 1 s",
    advice: Advice::if_reproduced(
        "Close the session when you stop, and the next one has the lock at once. For a crash the \
         session's time-out counts: a shorter one means a quicker take-over, and more locks lost to \
         pauses and slow networks.",
    ),
    needs: &[ServerKind::Zookeeper],
    run: |timeline| Box::pin(run(timeline)),
};

const SESSION: Duration = Duration::from_secs(1);

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let closed = clean_close(&observation.timeline.scene("a clean close")).await?;
    let timeline = observation.timeline.scene("kill -9");
    let crashed = recovery(StrategyName::Zookeeper, &timeline).await?;
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
async fn clean_close(timeline: &Timeline) -> anyhow::Result<Duration> {
    let server = lab::Zookeeper::start().await?;
    let keys = [("lock.zookeeper.session_timeout", "1s")];
    let contenders = Contenders::new(StrategyName::Zookeeper, &server, &keys).await?;
    let (holder, next) = (contenders.join("the holder").await?, contenders.join("the next").await?);
    let [one, other] = ["the holder", "the next"].map(|name| Participant::new(timeline, name, "ZooKeeper"));
    let lease = one.acquire(&*holder, Mode::Exclusive).await?;
    let going = async {
        until_census(&*holder, 1, 1).await?;
        let closed = Instant::now();
        timeline.note("the holder closes its session");
        one.leaves();
        drop(lease);
        holder.shutdown().await;
        anyhow::Ok(closed)
    };
    let waiting = async {
        let lease = other.acquire(&*next, Mode::Exclusive).await?;
        anyhow::Ok((Instant::now(), lease))
    };
    let (closed, waited) = tokio::join!(going, waiting);
    let (closed, (taken, lease)) = (closed?, waited?);
    other.release(lease).await;
    next.shutdown().await;
    Ok(taken.saturating_duration_since(closed))
}
