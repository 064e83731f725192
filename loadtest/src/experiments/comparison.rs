//! The course's ranking of the three locks, beside what is measured.

use std::time::Duration;

use lab::ServerKind;
use order_service::config::StrategyName;

use super::fixtures::{Loss, Shop, TimedRuns, Victim, recovery, seconds};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::spread::Spread;
use crate::verdict::{Status, Verdict};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "comparison",
    title: "Which lock is the best one?",
    claim: "Easy to understand: database > cache > ZooKeeper. Hard to implement: ZooKeeper ≥ cache > \
        database. Performance: cache > ZooKeeper ≥ database. Reliability: ZooKeeper > cache > database.",
    setup: "the lock table, Redis and ZooKeeper, and etcd, which the course does not rank: 64 buyers and two \
        replicas on PostgreSQL, in turn, one order per lock (textbook) and combined; the crash of a holder, \
        all leases of 1 s; the loss of one server for 4 s (the only one of PostgreSQL, of Redis and of etcd, \
        the leader of three of ZooKeeper)",
    advice: Advice::either(
        "The course's ranking held here: Redis for speed, ZooKeeper for availability, the lock table \
         where a database is all that you have. Whichever you take, keep the check at the write.",
        "The ranking depends on the machine and on how orders are batched, so do not choose by it \
         alone. Take what you operate already, compare what a crash and the loss of a server cost, and \
         keep the check at the write.",
    ),
    needs: &[ServerKind::Postgres, ServerKind::Redis, ServerKind::Zookeeper, ServerKind::Etcd],
    run: |timeline| Box::pin(run(timeline)),
};

/// Those that the course ranks, and one that it does not.
const STRATEGIES: [StrategyName; 4] =
    [StrategyName::Database, StrategyName::Redis, StrategyName::Zookeeper, StrategyName::Etcd];

/// Two figures closer than this are level, on a machine that others use as well.
const LEVEL: f64 = 0.95;

/// What was measured of one lock.
struct Measured {
    strategy: StrategyName,
    textbook: TimedRuns,
    combined: TimedRuns,
    recovery: Duration,
    loss: Loss,
}

/// A row of the course's ranking with what was measured.
struct Row {
    name: &'static str,
    course: &'static str,
    measured: String,
    /// Whether the course is right; `None`: nothing to be measured.
    holds: Option<bool>,
    why: &'static str,
}

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let mut series = TimedRuns::side_by_side(&STRATEGIES).await?;
    let combined = series.split_off(STRATEGIES.len());
    observation.timeline.note("throughput and latency are measured");
    let mut all = Vec::new();
    for (textbook, combined) in series.into_iter().zip(combined) {
        let strategy = textbook.strategy;
        let timeline = &observation.timeline;
        let recovery = recovery(strategy, &timeline.scene(format!("{strategy}: a holder crashes"))).await?;
        let victim = if strategy == StrategyName::Zookeeper { Victim::Leader } else { Victim::TheOne };
        let timeline = timeline.scene(format!("{strategy}: its server is lost"));
        let loss = Shop::open(strategy).await?.lose(victim, &timeline).await?;
        all.push(Measured { strategy, textbook, combined, recovery, loss });
    }
    for measured in &all {
        describe(measured, &mut observation);
    }
    let rows = judge(&all);
    let head = ["", "the course", "measured", "finding"];
    observation.table.push(head.map(str::to_owned).to_vec());
    for row in &rows {
        let finding = match row.holds {
            Some(true) => "reproduced",
            Some(false) => "refuted",
            None => "not decided",
        };
        let cells = [row.name, row.course, &row.measured, finding];
        observation.table.push(cells.map(str::to_owned).to_vec());
    }
    let refuted: Vec<_> = rows.iter().filter(|row| row.holds == Some(false)).collect();
    let explained = rows.iter().filter(|row| row.holds != Some(true) && !row.why.is_empty());
    let whys = explained.map(|row| format!("On {}: {}", row.name, row.why));
    observation.explanation = Some(whys.collect::<Vec<_>>().join(" ")).filter(|whys| !whys.is_empty());
    let names: Vec<_> = refuted.iter().map(|row| row.name).collect();
    observation.observed = match &names[..] {
        [] => "the ranking is that of the course in all that can be measured".into(),
        names => format!("the ranking is not that of the course in: {}", names.join(", ")),
    };
    let correct = all.iter().all(|measured| measured.textbook.is_correct() && measured.combined.is_correct());
    observation.finding =
        correct.then_some(if refuted.is_empty() { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}

/// The figures of one lock.
fn describe(measured: &Measured, observation: &mut Observation) {
    let latency = |timed: &TimedRuns| {
        let p50 = timed.spread(|run| run.latency_ms.p50);
        let p99 = timed.spread(|run| run.latency_ms.p99);
        format!("{} orders/s, p50 {:.1} ms, p99 {:.1} ms", timed.rate(), p50.median, p99.median)
    };
    let name = measured.strategy;
    let operations = operations_per_cycle(&measured.textbook);
    observation.figure(format!("{name}, operations per lock cycle, textbook"), format!("{operations:.1}"));
    observation.figure(format!("{name}, textbook"), latency(&measured.textbook));
    observation.figure(format!("{name}, combined"), latency(&measured.combined));
    observation.figure(format!("{name}, next holder after a crash"), seconds(measured.recovery));
    let loss = &measured.loss;
    let shows = if loss.shows { "products are shown" } else { "no product is shown" };
    let lost = format!("{} orders confirmed, {shows}; longest gap {}", loss.confirmed, seconds(loss.gap));
    observation.figure(format!("{name}, one server lost for 4 s"), lost);
    let runs = measured.textbook.runs.iter().chain(&measured.combined.runs);
    for run in runs.filter(|run| run.verdict != Verdict::Correct) {
        let checks = run.checks.iter();
        for check in checks.filter(|check| matches!(check.status, Status::Fail | Status::Unknown)) {
            observation.figure(format!("{name}, {}: {}", run.verdict, check.name), &check.detail);
        }
    }
}

/// Requests to the lock's server for each hold, those of waiting included.
fn operations_per_cycle(timed: &TimedRuns) -> Spread {
    timed.spread(|run| run.lock.round_trips as f64 / run.lock.holds.max(1) as f64)
}

/// The course's ranking beside the measured one.
fn judge(all: &[Measured]) -> Vec<Row> {
    let [database, cache, zookeeper, etcd] = all else { unreachable!("four locks were measured") };
    let rate = |timed: &TimedRuns| timed.rate().median;
    let (d, c, z) = (rate(&database.textbook), rate(&cache.textbook), rate(&zookeeper.textbook));
    let goes_on = zookeeper.loss.confirmed > 0;
    let availability = |measured: &Measured| match (measured.loss.confirmed, measured.loss.shows) {
        (0, true) => "shows but sells nothing".to_owned(),
        (0, false) => "nothing".to_owned(),
        (orders, _) => format!("sells on ({orders} orders)"),
    };
    let nothing_else_sold = cache.loss.confirmed == 0 && database.loss.confirmed == 0;
    vec![
        Row {
            name: "easy to understand",
            course: "database > cache > ZooKeeper",
            measured: "a matter of opinion".into(),
            holds: None,
            why: "",
        },
        Row {
            name: "hard to implement",
            course: "ZooKeeper ≥ cache > database",
            measured: "a matter of opinion".into(),
            holds: None,
            why: "the course's lock table is one insert and one delete, and that is easy indeed. One that \
                lapses, renews, queues first come first served and lets readers share has to make what the \
                others have built in: Redis the expiry and the atomic script, ZooKeeper the queue and the \
                session.",
        },
        Row {
            name: "performance",
            course: "cache > ZooKeeper ≥ database",
            measured: format!(
                "orders/s, textbook: cache {c:.0}, ZooKeeper {z:.0}, database {d:.0}; combined: {:.0}, \
                    {:.0}, {:.0}; etcd, not ranked: {:.0}, {:.0}",
                rate(&cache.combined),
                rate(&zookeeper.combined),
                rate(&database.combined),
                rate(&etcd.textbook),
                rate(&etcd.combined)
            ),
            holds: Some(c * LEVEL > z && z >= d * LEVEL),
            why: "where the orders themselves are commits of a database, the lock is only part of an order's \
                price. ZooKeeper writes each node to its log as the database does its records; which of the \
                two is ahead depends on their disks. Combined, one hold serves many orders and the locks \
                come close.",
        },
        Row {
            name: "reliability",
            course: "ZooKeeper > cache > database",
            measured: format!(
                "without one server: ZooKeeper {}, cache {}, database {}; etcd, not ranked: {}",
                availability(zookeeper),
                availability(cache),
                availability(database),
                availability(etcd)
            ),
            holds: Some(goes_on && nothing_else_sold && cache.loss.shows && !database.loss.shows),
            why: "no order was expected while the only server of a lock was gone, and some while the leader \
                of three was, and products to be shown wherever the orders' database was not the one that \
                was lost.",
        },
    ]
}
