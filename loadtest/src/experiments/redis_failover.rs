//! The primary dies with the lock, and the replica that takes over never had it.

use std::time::{Duration, Instant};

use anyhow::ensure;
use lab::{Direction, Lab, Proxy, Redis, Server as _, ServerKind};
use order_service::config::StrategyName;
use tokio::time::sleep;

use super::event::{EventKind, Party};
use super::fixtures::{Aftermath, TwoAtOnce};
use super::redis_setnx::lock_key;
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::fleet::{Fleet, FleetPlan};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "redis-failover",
    title: "Redis fails over and forgets the lock",
    claim: "(Readers:) the lock was written to the primary only; the primary dies; the replica that takes \
        over never had it: two holders. Guard off oversells, guard on does not.",
    setup: "two Redis servers, of which one follows the other over a link that is cut before A takes the \
        lock, as a replication that lags would leave it; two replicas of the service on one store, server-1 \
        on the primary, server-2 behind a name that is given the follower's address when the primary has \
        been killed and the follower promoted; orders take 2 s, the lease is 5 s; without and with the guard",
    advice: Advice::if_reproduced(
        "A lock on a Redis server with replicas may be forgotten by a fail-over. It is good for \
         avoiding double work; where double work costs money, let the database check a version at the \
         write.",
    ),
    needs: &[ServerKind::Redis],
    run: |timeline| Box::pin(run(timeline)),
};

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let unguarded = shop("off", &observation.timeline.scene("guard off")).await?;
    let guarded = shop("version", &observation.timeline.scene("guard on")).await?;
    observation.figure("guard off", unguarded.figure());
    observation.figure("guard on", guarded.figure());
    observation.observed = format!(
        "the promoted replica gave B the lock that A had; {} were sold of 2 without the guard, {} with it",
        unguarded.audit.units_sold, guarded.audit.units_sold
    );
    observation.explanation = Some(
        "Redis answers before its replicas have what was written, so a failover may forget a lock; no expiry \
         and no renewal helps. Redlock, which asks a majority of independent servers, makes it rarer; the \
         version that the write compares makes it harmless."
            .into(),
    );
    let occurred = unguarded.occurred() && guarded.occurred();
    let as_claimed = unguarded.oversold() && guarded.guarded();
    observation.finding = occurred.then_some(if as_claimed { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}

async fn shop(guard: &str, timeline: &Timeline) -> anyhow::Result<Aftermath> {
    let lab = Lab::new()?;
    let store = format!("sqlite://{}", lab.file("stocklock.db").display());
    let mut primary = Redis::start().await?;
    let follower = Redis::start_replica_of(&primary).await?;
    let link = follow_through_proxy(&follower, &primary).await?;
    // A name that is given the address of the new primary: a replica is no server for locks before.
    let name = Proxy::start(&primary.address()).await?;
    let named = primary.url_at(&[name.address().to_string()]);
    let server = async |name: &str, url: &str| {
        let plan = FleetPlan::new(StrategyName::Redis, 1)?
            .with("store.url", &store)
            .with("server.replica", name)
            .with("lock.redis.url", url)
            .with("lock.redis.lease", "5s")
            .with("lock.wait", "15s")
            .with("server.request_timeout", "20s")
            .with("checkout.think_time", "2s")
            .with("checkout.guard", guard);
        Fleet::start(plan).await
    };
    let (one, two) = (server("server-1", &primary.url()).await?, server("server-2", &named).await?);
    link.blackhole(Direction::ToClient);
    let what = "nothing of the primary reaches its follower any more";
    timeline.mark(EventKind::Broken, &Party::lock("Redis"), "follower cut off", what);
    let mut stage = TwoAtOnce::begin(&one.clients()[0], &two.clients()[0], timeline).await?;
    let owner = async |redis: &Redis| redis.command(&["HGET", &lock_key(), "holder"]).await;
    let (on_primary, on_follower) = (owner(&primary).await?, owner(&follower).await?);
    let what = format!("the lock's holder is {on_primary} on the primary, {on_follower} on the follower");
    timeline.mark(EventKind::Note, &Party::lock("Redis"), "follower knows of no lock", what);
    primary.kill().await?;
    // What is on its way in the proxy must not arrive after the primary's death.
    link.cut();
    follower.promote().await?;
    name.lead_to(&follower.address());
    let what = "the primary is killed, and the follower promoted, at the address that server-2 uses";
    timeline.mark(EventKind::Crashed, &Party::lock("Redis"), "primary killed, follower promoted", what);
    stage.b_orders(timeline).await?;
    let aftermath = stage.end(timeline).await?;
    one.stop().await?;
    two.stop().await?;
    Ok(aftermath)
}

/// Lets a follower reach its primary through a proxy, and waits until it has what the primary has.
pub(super) async fn follow_through_proxy(follower: &Redis, primary: &Redis) -> anyhow::Result<Proxy> {
    let link = Proxy::start(&primary.address()).await?;
    follower.command(&["REPLICAOF", "127.0.0.1", &link.address().port().to_string()]).await?;
    let give_up = Instant::now() + Duration::from_secs(20);
    while !follower.command(&["INFO", "replication"]).await?.contains("master_link_status:up") {
        ensure!(Instant::now() < give_up, "the follower does not follow");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(link)
}
