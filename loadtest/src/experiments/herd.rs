//! Who is woken by a release, and what that costs.

use std::sync::Arc;
use std::time::Duration;

use lab::{Direction, Etcd, Proxy, Server, ServerKind, Zookeeper};
use order_service::config::StrategyName;
use order_service::lock::Mode;
use order_service::telemetry::Metrics;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::event::{EventKind, Party};
use super::fixtures::{Contenders, Participant, SKU};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::fleet::key_of;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "herd",
    title: "Everybody wakes up for each release",
    claim: "If every waiter watches the whole directory, each release wakes them all and all list it again: \
        N waiters cost about N² listings and notifications. If each watches only its predecessor, one \
        release wakes one.",
    setup: "N sessions wait for one lock and pass it on, from the first release to the last; each waiter \
        watches all its siblings, or its predecessor; N of one process wait in etcd, each for its \
        predecessor; a proxy before the server counts the bytes in both directions",
    advice: Advice::if_reproduced(
        "Let each waiter watch only the one before it: then what a release costs does not grow with \
         the number of those who wait. Look whether your library does that before hundreds wait.",
    ),
    needs: &[ServerKind::Zookeeper, ServerKind::Etcd],
    run: |timeline| Box::pin(run(timeline)),
};

/// When nothing was counted for so long, nothing is under way: releases that follow each other too closely
/// would be noticed as one.
const QUIET: Duration = Duration::from_millis(20);

/// What waits where, and for what.
#[derive(Clone, Copy)]
struct Watching<'a> {
    name: &'static str,
    server: &'a dyn Server,
    strategy: StrategyName,
    /// The keys of the configuration, and what they are set to.
    keys: &'a [(&'static str, &'static str)],
    /// Whether each waiter is a process of its own.
    are_apart: bool,
}

/// The waiters of the first round.
const FEWEST: u64 = 10;

/// Of the round with the fewest waiters, so many releases are recorded.
const RECORDED: u64 = 3;

/// What it took to pass the lock on.
#[derive(Clone, Copy)]
struct Cost {
    notifications: u64,
    listings: u64,
    bytes: u64,
}

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let (zookeeper, etcd) = (Zookeeper::start().await?, Etcd::start().await?);
    let in_zookeeper = |name, keys| Watching {
        name,
        server: &zookeeper,
        strategy: StrategyName::Zookeeper,
        keys,
        are_apart: true,
    };
    let siblings = in_zookeeper(
        "siblings",
        &[("lock.zookeeper.session_timeout", "60s"), ("lock.zookeeper.watch", "siblings")],
    );
    let predecessor = in_zookeeper(
        "predecessor",
        &[("lock.zookeeper.session_timeout", "60s"), ("lock.zookeeper.watch", "predecessor")],
    );
    let predecessor_in_etcd = Watching {
        name: "predecessor, in etcd",
        server: &etcd,
        strategy: StrategyName::Etcd,
        // So long that no waiter looks without a reason.
        keys: &[("lock.etcd.lease", "1h")],
        are_apart: false,
    };
    let head = ["waiters", "watching", "notifications", "listings", "bytes", "expected"];
    observation.table.push(head.map(str::to_owned).to_vec());
    let mut as_claimed = true;
    let mut last = Vec::new();
    for waiters in [FEWEST, 50, 100, 200] {
        last.clear();
        // Each of those who still wait is woken by each release, and lists once more.
        let all = waiters * (waiters + 1) / 2;
        for (watching, expected) in [(siblings, all), (predecessor, waiters), (predecessor_in_etcd, waiters)]
        {
            let name = watching.name;
            let whole = &observation.timeline;
            let timeline =
                (waiters == FEWEST).then(|| whole.scene(format!("{waiters} waiters watch: {name}")));
            let cost = pass_on(watching, waiters, timeline.as_ref()).await?;
            let Cost { notifications, listings, .. } = cost;
            timeline.as_ref().unwrap_or(whole).note(format!(
                "{waiters} waiters, each watching {name}, have passed the lock on: {notifications} \
                 notifications and {listings} listings in all"
            ));
            let row = [
                waiters.to_string(),
                name.to_owned(),
                cost.notifications.to_string(),
                cost.listings.to_string(),
                cost.bytes.to_string(),
                expected.to_string(),
            ];
            observation.table.push(row.to_vec());
            // Whoever lists a second time, since it was woken late, makes no herd.
            let most = if expected == all { all * 12 / 10 } else { expected * 2 };
            let about = expected * 8 / 10..=most;
            as_claimed &= about.contains(&cost.notifications) && about.contains(&cost.listings);
            last.push(cost);
        }
    }
    let [siblings, predecessor, in_etcd] = last[..] else { unreachable!("all three were measured") };
    observation.observed = format!(
        "with 200 waiters, watching all siblings cost {} notifications, {} listings and {} kB; watching the \
         predecessor {}, {} and {} kB, and in etcd {}, {} and {} kB",
        siblings.notifications,
        siblings.listings,
        siblings.bytes / 1000,
        predecessor.notifications,
        predecessor.listings,
        predecessor.bytes / 1000,
        in_etcd.notifications,
        in_etcd.listings,
        in_etcd.bytes / 1000,
    );
    observation.explanation = Some(
        "It is N(N + 1)/2 rather than N², since each release has one waiter less to wake. The bytes grow \
         faster still, about with the cube, because each of those listings names all who are left; and those \
         who watch only their predecessor also list once when they are woken, to be sure that it was their \
         turn and not a waiter giving up. In etcd a process hears of each release once, over one stream, \
         and wakes the one waiter that it is for."
            .into(),
    );
    observation.finding = Some(if as_claimed { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}

/// Lets so many wait for the lock and pass it on.
async fn pass_on(watching: Watching<'_>, waiters: u64, timeline: Option<&Timeline>) -> anyhow::Result<Cost> {
    let Watching { server, strategy, keys, are_apart, .. } = watching;
    let patiently = || Instant::now() + Duration::from_secs(300);
    let network = Proxy::start(&server.addresses()[0]).await?;
    let url = server.url_at(&[network.address().to_string()]);
    let keys = [&[(key_of(server.kind()), url.as_str())][..], keys].concat();
    let contenders = Contenders::new(strategy, server, &keys).await?;
    let metrics = Metrics::new(strategy);
    let holder = contenders.join("the holder").await?;
    let held = holder.acquire(SKU, Mode::Exclusive, patiently()).await?;
    let count = || Cost {
        notifications: metrics.lock.watch_notifications.get(),
        listings: metrics.lock.listings.get(),
        bytes: network.bytes(Direction::ToServer) + network.bytes(Direction::ToClient),
    };
    let all_have_noticed = async || {
        let mut before = count();
        loop {
            sleep(QUIET).await;
            let now = count();
            if (now.notifications, now.listings) == (before.notifications, before.listings) {
                return now;
            }
            before = now;
        }
    };
    let (won, mut winners) = mpsc::unbounded_channel();
    let mut waiting = JoinSet::new();
    let mut lock = contenders.join_counted("the first waiter", &metrics).await?;
    for number in 0..waiters {
        if are_apart && number > 0 {
            lock = contenders.join_counted(&format!("waiter {number}"), &metrics).await?;
        }
        let lock = Arc::clone(&lock);
        let won = won.clone();
        waiting.spawn(async move {
            let lease = lock.acquire(SKU, Mode::Exclusive, patiently()).await?;
            won.send((number, lease)).ok();
            anyhow::Ok(lock)
        });
    }
    while holder.state(SKU).await?.waiting < waiters {
        sleep(QUIET).await;
    }
    let before = all_have_noticed().await;
    let title = server.kind().title();
    let (service, those_who_wait) = (Party::lock(title), Party::holder("who waits"));
    let mut seen = before;
    if let Some(timeline) = timeline {
        Participant::new(timeline, "the holder", title).leaves();
    }
    held.release().await;
    for turn in 0..waiters {
        let (number, lease) = tokio::select! {
            Some(won) = winners.recv() => won,
            () = tokio::time::sleep_until(patiently()) => anyhow::bail!("no other had the lock next"),
        };
        let recorded = timeline.filter(|_| turn < RECORDED);
        let winner = |timeline| Participant::new(timeline, format!("waiter {}", number + 1), title);
        let winner = recorded.map(winner);
        if let Some(winner) = &winner {
            winner.has(Mode::Exclusive);
        }
        let now = all_have_noticed().await;
        if let Some(timeline) = recorded {
            let (woken, listed) = (now.notifications - seen.notifications, now.listings - seen.listings);
            let what = format!("for this release {woken} were woken, and {listed} listed the directory");
            let label = format!("wakes {woken}, {listed} list");
            timeline.arrow(EventKind::Sent, [&service, &those_who_wait], label, what);
        }
        seen = now;
        if let Some(winner) = winner {
            winner.leaves();
        }
        lease.release().await;
    }
    let after = all_have_noticed().await;
    for lock in waiting.join_all().await {
        lock?.shutdown().await;
    }
    holder.shutdown().await;
    Ok(Cost {
        notifications: after.notifications - before.notifications,
        listings: after.listings - before.listings,
        bytes: after.bytes - before.bytes,
    })
}
