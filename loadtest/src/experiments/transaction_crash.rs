//! A service dies with an open transaction: who frees its row locks?

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use lab::{Direction, Postgres, ServerKind};
use order_service::config::StrategyName;
use tokio::time::sleep;

use super::event::{EventKind, Party};
use super::fixtures::{SKU, order, seconds};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::fleet::{Fleet, FleetPlan, StoreKind};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "transaction-crash",
    title: "A service dies inside its transaction",
    claim: "(A reader asks:) if the service dies before it commits, are the locks of its transaction freed \
     by \
        themselves?",
    setup: "the row's own lock (select … for update) on PostgreSQL, two replicas, orders that take 2 s \
     inside \
        the transaction; two in stock; A's replica is ended by kill -9 in the middle of its transaction, \
        and B \
        orders at the other; the same with A's replica alive, and no packet between it and the server any \
        more",
    advice: Advice::if_reproduced(
        "A killed process frees its row locks at once, a network that falls silent does not. Set \
         idle_in_transaction_session_timeout, or what your database has instead, or a lost client \
         keeps the row for as long as the server believes in it.",
    ),
    needs: &[ServerKind::Postgres],
    run: |timeline| Box::pin(run(timeline)),
};

/// Transactions that hold locks and wait for their client.
const OPEN: &str = "select count(*) from pg_stat_activity a where state = 'idle in transaction' \
     and exists (select from pg_locks l where l.pid = a.pid and l.mode = 'RowShareLock')";

/// What was seen of one end.
struct End {
    /// Until the server had freed the locks.
    freed_after: Duration,
    /// What B was left when she had bought.
    left: i64,
    units_sold: i64,
}

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let killed =
        end_by(&observation.timeline, "kill -9", async |fleet| Ok(fleet.replicas()[0].kill().await?)).await?;
    let silent = end_by(&observation.timeline, "silence", async |fleet| {
        for direction in [Direction::ToServer, Direction::ToClient] {
            fleet.links_of(0).to(ServerKind::Postgres)[0].blackhole(direction);
        }
        Ok(())
    })
    .await?;
    observation.figure("locks freed after kill -9", seconds(killed.freed_after));
    observation.figure("locks freed after the connection went silent", seconds(silent.freed_after));
    observation.observed = format!(
        "after kill -9 the server had rolled back and freed the row in {}; after a silent loss in {}; B \
         bought \
         from what there was before A ({} left each time), and {} and {} units were sold",
        seconds(killed.freed_after),
        seconds(silent.freed_after),
        killed.left,
        killed.units_sold,
        silent.units_sold
    );
    observation.explanation = Some(
        "A transaction lives in the server, in a process that has the connection. When the client dies, its \
         kernel closes the connection, and the server rolls back at once. Where nobody closes it (a machine \
         without power, a network that drops packets), the server knows nothing: the locks are held until a \
         limit ends the session. This service asks for one (idle_in_transaction_session_timeout), which \
         PostgreSQL does not have of itself, and whose length is that of a lease."
            .into(),
    );
    let sound = [&killed, &silent].iter().all(|end| end.left == 1 && end.units_sold == 1);
    let freed = killed.freed_after < Duration::from_secs(1);
    observation.finding = Some(if sound && freed { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}

async fn end_by(
    timeline: &Timeline,
    how: &str,
    end: impl AsyncFnOnce(&mut Fleet) -> anyhow::Result<()>,
) -> anyhow::Result<End> {
    let timeline = &timeline.scene(how);
    let (holder, database) = (Party::holder("replica-1"), Party::database());
    let mut plan = FleetPlan::new(StrategyName::Row, 2)?
        .with("lock.wait", "40s")
        .with("server.request_timeout", "45s")
        .with("checkout.think_time", "2s");
    plan.store = StoreKind::Postgres;
    plan.proxied = true;
    let mut fleet = Fleet::start(plan).await?;
    let (first, second) = (fleet.clients()[0].clone(), fleet.clients()[1].clone());
    first.create_product(SKU, "Hair dryer", 2).await?;
    timeline.orders("A", 1, "replica-1");
    let a = tokio::spawn(async move { order(&first, "A", 1).await });
    let give_up = Instant::now() + Duration::from_secs(20);
    while open(&fleet).await? == 0 {
        ensure!(Instant::now() < give_up, "A's transaction was never open");
        sleep(Duration::from_millis(5)).await;
    }
    timeline.arrow(EventKind::Granted, [&database, &holder], "has the row", "A's transaction has the row");
    end(&mut fleet).await?;
    let ended = Instant::now();
    let (kind, label) = match how {
        "silence" => (EventKind::Broken, "no way to the database"),
        _ => (EventKind::Crashed, how),
    };
    timeline.mark(kind, &holder, label, format!("A's replica is lost: {how}"));
    let give_up = Instant::now() + Duration::from_secs(60);
    while open(&fleet).await? > 0 {
        ensure!(Instant::now() < give_up, "{how}: the locks are not freed");
        sleep(Duration::from_millis(5)).await;
    }
    let freed_after = ended.elapsed();
    let what = "the server has rolled A's transaction back and freed the row";
    timeline.arrow(EventKind::Lapsed, [&database, &holder], "rolled back, row freed", what);
    timeline.orders("B", 1, "replica-2");
    let b = order(&second, "B", 1).await?;
    timeline.note_reply("B", &b);
    let left = b.order().map_or(-1, |order| order.stock_after);
    let units_sold = second.audit(SKU).await?.units_sold;
    a.abort();
    // What cannot be reached does not stop by itself.
    fleet.replicas()[0].kill().await.ok();
    Ok(End { freed_after, left, units_sold })
}

/// How many transactions hold rows and wait for their client.
async fn open(fleet: &Fleet) -> anyhow::Result<u64> {
    let postgres = fleet.servers().find::<Postgres>().context("the store is on PostgreSQL")?;
    postgres.query(OPEN).await?.parse().context("a number of transactions")
}
