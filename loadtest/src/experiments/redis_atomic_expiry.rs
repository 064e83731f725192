//! `setnx` and `expire` as two commands, and a crash between them.

use std::time::Duration;

use lab::{Redis, ServerKind};
use order_service::config::StrategyName;
use tokio::time::sleep;

use super::event::{EventKind, Party};
use super::fixtures::{HoldWatch, SKU, order, until_holds};
use super::redis_setnx::lock_key;
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::fleet::{Fleet, FleetPlan};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "redis-atomic-expiry",
    title: "setnx, then expire, and a crash in between",
    claim: "(Readers:) setnx and expire as two commands: a crash between them leaves a lock without expiry. \
        One atomic command does not.",
    setup: "a client that ends between setnx and expire, one that ends after one command with both in it, \
        and a replica of the service that is ended with kill -9 while it has the lock; a second client tries \
        after the expiry of 1 s, and the server is asked how long each key lives",
    advice: Advice::if_reproduced(
        "Set key and expiry with one atomic command (SET … NX PX …). Where you find SETNX followed by \
         EXPIRE in code, replace it: one crash at the wrong moment keeps everybody out until somebody \
         deletes the key.",
    ),
    needs: &[ServerKind::Redis],
    run: |timeline| Box::pin(run(timeline)),
};

/// All expiries.
const EXPIRY_MS: &str = "1000";

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let plan = FleetPlan::new(StrategyName::Redis, 1)?
        .with("lock.redis.lease", "1s")
        .with("checkout.think_time", "5s")
        .with("server.request_timeout", "10s");
    let mut fleet = Fleet::start(plan).await?;
    let ours = crash_of_the_service(&mut fleet, &observation.timeline.scene("the service")).await?;
    let redis: &Redis = fleet.servers().find().expect("the strategy needs one");
    let timelines = ["two commands", "one command"].map(|scene| observation.timeline.scene(scene));
    let server = Party::lock("Redis");
    let clients = ["first client", "second client"].map(Party::holder);

    redis.command(&["SETNX", "two-commands", "first"]).await?;
    sets_and_ends(&timelines[0], "setnx", "the first client sends setnx, and ends before it sends expire");
    redis.command(&["SET", "one-command", "first", "NX", "PX", EXPIRY_MS]).await?;
    sets_and_ends(&timelines[1], "set … nx px 1000", "the first client sends SET … NX PX 1000, and ends");
    let two = time_to_live(redis, "two-commands").await?;
    let one = time_to_live(redis, "one-command").await?;
    sleep(Duration::from_millis(1_300)).await;
    let again_two = redis.command(&["SET", "two-commands", "second", "NX", "PX", EXPIRY_MS]).await?;
    let again_one = redis.command(&["SET", "one-command", "second", "NX", "PX", EXPIRY_MS]).await?;
    for (timeline, again) in timelines.iter().zip([&again_two, &again_one]) {
        let what = "1.3 s later the second client tries";
        timeline.arrow(EventKind::Asked, [&clients[1], &server], "set … nx", what);
        let kind = if again == "OK" { EventKind::Granted } else { EventKind::Refused };
        let what = format!("it is answered {again}");
        timeline.arrow(kind, [&server, &clients[1]], again.as_str(), what);
    }
    let two_later = time_to_live(redis, "two-commands").await?;

    observation.figure("time to live after two commands", format!("{two}, 1.3 s later {two_later}"));
    observation.figure("time to live after one command", format!("{one} ms"));
    observation.figure("time to live of the service's key after kill -9", format!("{ours} ms"));
    let stays = two == -1 && two_later == -1 && again_two == "(nil)";
    let lapses = one > 0 && ours > 0 && again_one == "OK";
    observation.observed = format!(
        "after setnx alone the key {}; with its expiry in the same command {}",
        if stays { "has no expiry (-1) and keeps the second client out for ever" } else { "did lapse" },
        if lapses { "it lapses and the second client has it" } else { "it did not lapse" },
    );
    let reproduced = stays && lapses;
    observation.finding = Some(if reproduced { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}

/// Records that the first client has the key, and ends.
fn sets_and_ends(timeline: &Timeline, command: &str, what: &str) {
    let (client, server) = (Party::holder("first client"), Party::lock("Redis"));
    timeline.arrow(EventKind::Asked, [&client, &server], command, what);
    timeline.arrow(EventKind::Granted, [&server, &client], "OK", "it has the key");
    timeline.mark(EventKind::Crashed, &client, "ends", "the first client is gone");
}

/// Kills the replica while it has the lock. Returns for how long Redis keeps its key then.
async fn crash_of_the_service(fleet: &mut Fleet, timeline: &Timeline) -> anyhow::Result<i64> {
    let client = fleet.clients()[0].clone();
    client.create_product(SKU, "Hair dryer", 2).await?;
    let watch = HoldWatch::start(timeline, fleet.clients()).await?;
    timeline.orders("A", 1, "replica-1");
    let ordering = client.clone();
    let abandoned = tokio::spawn(async move { order(&ordering, "A", 1).await });
    until_holds(&client, "replica-1").await?;
    watch.look().await;
    fleet.replicas()[0].kill().await?;
    let left = time_to_live(fleet.servers().find().expect("the strategy needs one"), &lock_key()).await?;
    timeline.crashed("replica-1", "replica-1 has the lock, and is ended with kill -9");
    let what = format!("the key that it left has {left} ms to live");
    timeline.mark(EventKind::Note, &Party::lock("Redis"), &format!("{left} ms to live"), what);
    // The connection broke with the replica.
    abandoned.await?.ok();
    Ok(left)
}

/// Milliseconds that a key has to live; -1: for ever, -2: there is none.
async fn time_to_live(redis: &Redis, key: &str) -> anyhow::Result<i64> {
    Ok(redis.command(&["PTTL", key]).await?.parse()?)
}
