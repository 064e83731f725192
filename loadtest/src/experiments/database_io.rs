//! What a lock costs that is kept on a disk.

use std::time::Instant;

use anyhow::Context as _;
use lab::{Postgres, Redis, ServerKind};
use order_service::config::StrategyName;
use order_service::lock::{Lock, Mode};

use super::event::{EventKind, Party};
use super::fixtures::{Contenders, Participant, SKU, TimedRuns, patiently};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::spread::Spread;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "database-io",
    title: "What a lock on a disk costs",
    claim: "A lock table costs disk I/O on every lock and unlock, so it suits low concurrency only; a \
        Double-11 rush is beyond it.",
    setup: "first one process that locks and unlocks, uncontended, on PostgreSQL and on Redis in turn, with \
        what each server says it wrote and carried out; then 64 buyers and two replicas on PostgreSQL, one \
        order per lock (textbook) and combined, under each lock in turn",
    advice: Advice::either(
        "If each order takes the lock for itself, a lock table costs throughput here. Before you add a \
         server for locks, let one hold serve all the orders that wait, and compare the two figures \
         above.",
        "On this machine the lock table's disk is not what limits the shop, since each order is a \
         commit as well. Measure on your own disks before you add a server for locks.",
    ),
    needs: &[ServerKind::Postgres, ServerKind::Redis],
    run: |timeline| Box::pin(run(timeline)),
};

/// Cycles of lock and unlock that are measured together.
const CYCLES: u32 = 200;

/// How often.
const ROUNDS: usize = 3;

/// How much less is clearly less on a machine that others use as well.
const CLEARLY: f64 = 0.9;

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let wal_bytes = cycles(&mut observation).await?;
    let timeline = observation.timeline.scene("the shop");
    timeline.note("64 buyers come, under each lock in turn, one order per lock and combined");
    let series = TimedRuns::side_by_side(&[StrategyName::Database, StrategyName::Redis]).await?;
    timeline.note("all runs have ended; thousands of orders are not drawn");
    for timed in &series {
        let mode = if timed.max_batch == 1 { "textbook" } else { "combined" };
        observation.figure(
            format!("orders/s, {mode}, {}", timed.strategy),
            format!("{}, p99 {:.1} ms", timed.rate(), timed.spread(|run| run.latency_ms.p99)),
        );
    }
    let [database, redis, combined_database, combined_redis] = &series[..] else {
        unreachable!("two strategies were measured in two modes")
    };
    let textbook = database.rate().median / redis.rate().median;
    let combined = combined_database.rate().median / combined_redis.rate().median;
    let gain = combined_database.rate().median / database.rate().median;
    observation.observed = format!(
        "a cycle of the lock table writes {wal_bytes} bytes of log; with one order per lock the shop did \
         {textbook:.2} times as many orders with it as with Redis, combined {combined:.2} times as many"
    );
    let effect =
        if combined >= CLEARLY { "which removes the difference" } else { "which narrows the difference" };
    observation.explanation = Some(format!(
        "Each lock and each unlock is a commit, which has to be on the disk; Redis answers from memory (as \
         the laboratory runs it, it keeps nothing on a disk at all). But the order itself is a commit, too, \
         so the lock can slow a shop down only so far. And one lock hold may serve all orders that have come \
         meanwhile, here at most 256: then there are few cycles to pay for, the fewer for each order the \
         more buyers there are. Combining made the shop {gain:.1} times as fast under the lock table, and \
         brought it from {textbook:.2} to {combined:.2} of what it does under Redis, {effect}. What is \
         beyond a lock table is a lock for each order of a rush."
    ));
    let correct = series.iter().all(TimedRuns::is_correct);
    let reproduced = wal_bytes > 0 && textbook < CLEARLY;
    observation.finding = correct.then_some(if reproduced { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}

/// Locks and unlocks on both in turn. Returns how many bytes a cycle of the lock table writes.
async fn cycles(observation: &mut Observation) -> anyhow::Result<u64> {
    let (postgres, redis) = (Postgres::start().await?, Redis::start().await?);
    let on_postgres = Contenders::new(StrategyName::Database, &postgres, &[]).await?;
    let on_redis = Contenders::new(StrategyName::Redis, &redis, &[]).await?;
    let (database, cache) = (on_postgres.join("a process").await?, on_redis.join("a process").await?);
    for (name, lock) in [("PostgreSQL", &database), ("Redis", &cache)] {
        let timeline = observation.timeline.scene(format!("two cycles of {CYCLES} on {name}"));
        let process = Participant::new(&timeline, "a process", name);
        for _ in 0..2 {
            let lease = process.acquire(&**lock, Mode::Exclusive).await?;
            process.release(lease).await;
            timeline.mark(EventKind::Answered, &Party::lock(name), "released", "the release is answered");
        }
    }
    // What is done only once is not counted.
    turn(&*database, 5).await?;
    turn(&*cache, 5).await?;
    redis.command(&["CONFIG", "RESETSTAT"]).await?;
    let (mut written, mut database_ms, mut cache_ms) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = postgres.query("select pg_current_wal_insert_lsn()").await?;
        database_ms.push(turn(&*database, CYCLES).await?);
        let since = format!("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '{before}')");
        let bytes: f64 = postgres.query(&since).await?.parse().context("no number of bytes")?;
        written.push(bytes / f64::from(CYCLES));
        cache_ms.push(turn(&*cache, CYCLES).await?);
    }
    let commands = commands(&redis.command(&["INFO", "commandstats"]).await?);
    let persistence = redis.command(&["INFO", "persistence"]).await?;
    let is_in_memory = persistence.contains("aof_enabled:0") && persistence.contains("rdb_saves:0");
    database.shutdown().await;
    cache.shutdown().await;
    let written = Spread::of(written);
    observation.figure("log written per cycle, lock table", format!("{written} bytes"));
    let per_cycle = commands as f64 / f64::from(CYCLES) / ROUNDS as f64;
    let on_disk = if is_in_memory { "nothing written to a disk" } else { "and it writes to a disk" };
    observation.figure("commands per cycle, Redis", format!("{per_cycle:.1}, {on_disk}"));
    observation.figure("time per cycle, lock table", format!("{:.2} ms", Spread::of(database_ms)));
    observation.figure("time per cycle, Redis", format!("{:.2} ms", Spread::of(cache_ms)));
    Ok(written.median as u64)
}

/// So many cycles. Returns the milliseconds that one took.
async fn turn(lock: &dyn Lock, cycles: u32) -> anyhow::Result<f64> {
    let begun = Instant::now();
    for _ in 0..cycles {
        lock.acquire(SKU, Mode::Exclusive, patiently()).await?.release().await;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3 / f64::from(cycles))
}

/// How many scripts the server has carried out.
fn commands(stats: &str) -> u64 {
    let scripts = stats.lines().filter(|line| line.starts_with("cmdstat_eval"));
    let calls =
        scripts.filter_map(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok());
    calls.sum()
}
