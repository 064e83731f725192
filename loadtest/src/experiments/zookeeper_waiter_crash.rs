//! The one who is watched dies without ever having had the lock.

use std::time::{Duration, Instant};

use anyhow::ensure;
use lab::{Direction, Proxy, Server as _, ServerKind, Zookeeper};
use order_service::config::StrategyName;
use order_service::lock::Mode;
use tokio::time::sleep;

use super::event::{EventKind, Party};
use super::fixtures::{Contenders, Participant, SKU, until_census};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::fleet::key_of;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "zookeeper-waiter-crash",
    title: "The one I watch dies without ever having had the lock",
    claim: "(A reader asks:) the node that I watch dies without ever having had the lock: are there two \
     holders \
        then?",
    setup: "a real ZooKeeper, sessions of 1 s; A has the lock, B waits and watches A's node, C waits and \
     watches \
        B's; B's connection goes silent until the server has ended its session and removed its node; then A \
        gives the lock back",
    advice: Advice::either(
        "Two held the lock: do not use such an implementation. After each event list again, and take \
         the lock only when no smaller number is left.",
        "To be woken is not to be granted: list again after each event, and take the lock only when no \
         smaller number is left. Check that your library does, or use one that is tested for it.",
    ),
    needs: &[ServerKind::Zookeeper],
    run: |timeline| Box::pin(run(timeline)),
};

/// How long nobody else may come in.
const WATCHED: Duration = Duration::from_secs(1);

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let timeline = &observation.timeline;
    let server = Zookeeper::start().await?;
    let link = Proxy::start(&server.addresses()[0]).await?;
    let short = ("lock.zookeeper.session_timeout", "1s");
    let address = server.url_at(&[link.address().to_string()]);
    let through_link = [short, (key_of(ServerKind::Zookeeper), address.as_str())];
    let contenders = Contenders::new(StrategyName::Zookeeper, &server, &[short]).await?;
    let cut_off = Contenders::new(StrategyName::Zookeeper, &server, &through_link).await?;
    let (a, b, c) = (contenders.join("A").await?, cut_off.join("B").await?, contenders.join("C").await?);
    let [of_a, of_b, of_c] = ["A", "B", "C"].map(|name| Participant::new(timeline, name, "ZooKeeper"));
    let watches = |who: &str, whom: &str| {
        let (label, what) = (format!("watches {whom}"), format!("{who} waits, and watches {whom}'s node"));
        timeline.mark(EventKind::Note, &Party::holder(who), &label, what);
    };
    let lease = of_a.acquire(&*a, Mode::Exclusive).await?;
    let waiting_b = tokio::spawn(async move { of_b.acquire(&*b, Mode::Exclusive).await });
    until_census(&*a, 1, 1).await?;
    watches("B", "A");
    let c_lock = std::sync::Arc::clone(&c);
    let waiter = of_c.clone();
    let mut waiting_c = tokio::spawn(async move {
        let lease = waiter.acquire(&*c_lock, Mode::Exclusive).await;
        (lease, Instant::now())
    });
    until_census(&*a, 1, 2).await?;
    watches("C", "B");
    for direction in [Direction::ToServer, Direction::ToClient] {
        link.blackhole(direction);
    }
    timeline.mark(EventKind::Broken, &Party::holder("B"), "cut off", "B is cut off");
    until_census(&*a, 1, 1).await?;
    let what = "the server has ended B's session: its node is gone, and C is told so";
    let parties = [&Party::lock("ZooKeeper"), &Party::holder("C")];
    timeline.arrow(EventKind::Sent, parties, "B's node is gone", what);
    let mut most_holders = 1;
    let until = Instant::now() + WATCHED;
    while Instant::now() < until {
        most_holders = most_holders.max(a.state(SKU).await?.holders.len());
        ensure!(lease.check().is_ok(), "A has lost the lock, which is another experiment");
        sleep(Duration::from_millis(5)).await;
    }
    let c_came_early = waiting_c.is_finished();
    let state = a.state(SKU).await?;
    let what = format!("a second later {} holds, {} waits", state.holders.len(), state.waiting);
    let label = format!("{} holds, {} waits", state.holders.len(), state.waiting);
    timeline.mark(EventKind::Note, &Party::lock("ZooKeeper"), &label, what);
    let given_back = Instant::now();
    of_a.release(lease).await;
    let (c_lease, c_had_it) = tokio::time::timeout(Duration::from_secs(20), &mut waiting_c).await??;
    let c_lease = c_lease?;
    let after = c_had_it.saturating_duration_since(given_back);
    of_c.release(c_lease).await;
    link.cut();
    link.heal();
    waiting_b.abort();
    observation.figure("most holders at once, while A had it", most_holders);
    observation.figure("C had it after A gave it back", format!("{} ms", after.as_millis()));
    observation.observed = format!(
        "when B's node went, C was told, and went on waiting; {most_holders} held the lock at a time, and \
         C had it \
         {} ms after A had given it back",
        after.as_millis()
    );
    observation.explanation = Some(
        "The end of the watched node is not a turn, only a reason to look again: C lists the directory, \
         finds A's \
         node before its own, and watches that. A client that takes the message for its turn would hold \
         the lock \
         beside A; the recipe in ZooKeeper's documentation says to go back to listing."
            .into(),
    );
    let sound = most_holders == 1 && !c_came_early;
    observation.finding = Some(if sound { Finding::Refuted } else { Finding::Reproduced });
    Ok(observation)
}
