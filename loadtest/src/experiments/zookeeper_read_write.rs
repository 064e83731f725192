//! Readers share, and a writer waits for everybody before it.

use std::time::Instant;

use lab::ServerKind;
use order_service::config::StrategyName;
use order_service::lock::Mode;

use super::event::{EventKind, Party};
use super::fixtures::{Contenders, HoldWatch, Participant, SKU, order, until_census};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::fleet::{Fleet, FleetPlan};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "zookeeper-read-write",
    title: "Readers share, a writer waits",
    claim: "Read requests wait only for write requests before them; write requests wait for every request \
        before them. A buys, C looks at the stock, B wants to buy: B waits for A to buy and C to look. \
        Readers share.",
    setup: "three replicas that need 0.5 s for an order. A buys from replica-1; C looks at the stock on \
        replica-3 under the shared lock, and so does another reader, in a process of its own, who keeps it; \
        then B buys from replica-2",
    advice: Advice::if_reproduced(
        "Take a shared lock only where a reader must not see a change that is half done. A writer \
         waits for each reader before it, so readers have to be quick.",
    ),
    needs: &[ServerKind::Zookeeper],
    run: |timeline| Box::pin(run(timeline)),
};

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let plan = FleetPlan::new(StrategyName::Zookeeper, 3)?
        .with("checkout.think_time", "500ms")
        .with("lock.wait", "10s")
        .with("server.request_timeout", "15s");
    let fleet = Fleet::start(plan).await?;
    let clients = fleet.clients().to_vec();
    let [one, two, three] = &clients[..] else { unreachable!("three replicas were started") };
    one.create_product(SKU, "Hair dryer", 5).await?;
    let server = fleet.servers().get(ServerKind::Zookeeper).expect("the strategy needs one");
    let readers = Contenders::new(StrategyName::Zookeeper, server, &[]).await?;
    let (reader, second_reader) = (readers.join("reader 1").await?, readers.join("reader 2").await?);
    let timeline = &observation.timeline;

    let watch = HoldWatch::start(timeline, &clients).await?;
    let [first, second] = ["reader 1", "reader 2"].map(|name| Participant::new(timeline, name, "ZooKeeper"));
    timeline.orders("A", 1, "replica-1");
    let ordering = one.clone();
    let a = tokio::spawn(async move { order(&ordering, "A", 1).await });
    until_census(&*reader, 1, 0).await?;
    let (looker, replica) = (Party::buyer("C"), Party::holder("replica-3"));
    let what = "C asks for the stock, on replica-3, under the shared lock";
    timeline.arrow(EventKind::Sent, [&looker, &replica], "how many are left?", what);
    let looking = three.clone();
    let c = tokio::spawn(async move {
        let stock = looking.locked_stock(SKU).await?;
        anyhow::Ok((Instant::now(), stock))
    });
    until_census(&*reader, 1, 1).await?;
    timeline.mark(EventKind::Note, &replica, "C waits", "C waits for A");
    let asked = async {
        until_census(&*reader, 1, 3).await?;
        timeline.orders("B", 1, "replica-2");
        let ordering = two.clone();
        let b = tokio::spawn(async move { order(&ordering, "B", 1).await });
        until_census(&*reader, 1, 4).await?;
        anyhow::Ok((Instant::now(), b))
    };
    let (read, second_read, asked) = tokio::join!(
        first.acquire(&*reader, Mode::Shared),
        second.acquire(&*second_reader, Mode::Shared),
        asked
    );
    let (read, second_read, (b_asked, b)) = (read?, second_read?, asked?);
    let a = a.await??;
    watch.look().await;
    timeline.note_reply("A", &a);
    let (c_told, stock) = c.await??;
    let (label, what) =
        (format!("{} left", stock.stock), format!("C is told that there are {}", stock.stock));
    timeline.arrow_at(c_told, EventKind::Answered, [&replica, &looker], label, what);
    // C has gone when she has looked; the two others share the lock for as long as they like.
    until_census(&*reader, 2, 1).await?;
    let state = reader.state(SKU).await?;
    let sharing = state.holders.iter().filter(|holder| holder.mode == Mode::Shared).count();
    let b_waits = !b.is_finished() && state.waiting == 1;
    let what = format!("{sharing} readers have the lock together, and {} waits: B", state.waiting);
    let label = format!("{sharing} share, {} waits", state.waiting);
    timeline.mark(EventKind::Note, &Party::lock("ZooKeeper"), &label, what);
    first.release(read).await;
    let one_reader_left = one.product(SKU).await?.stock == 4 && !b.is_finished();
    let what = "one of the readers has left; B still waits";
    timeline.mark(EventKind::Note, &Party::holder("replica-2"), "B still waits", what);
    let left = Instant::now();
    second.release(second_read).await;
    let b = b.await??;
    watch.look().await;
    timeline.note_reply("B", &b);
    fleet.stop().await?;

    let a_bought = a.order().is_some_and(|order| order.stock_after == 4);
    let b_bought = b.order().is_some_and(|order| order.stock_before == 4);
    // Everybody was in line before the first had done.
    let all_waited = b_asked < a.at && b_asked < c_told && left < b.at;
    observation.figure("readers with the lock at once, by the directory", sharing);
    let level = |level: Option<i64>| level.map_or("none".into(), |level| level.to_string());
    observation.figure("left by A", level(a.order().map(|order| order.stock_after)));
    observation.figure("seen by C", stock.stock);
    observation.figure("read by B", level(b.order().map(|order| order.stock_before)));
    observation.observed = format!(
        "C saw the stock that A left; {sharing} readers shared the lock; B {} until the last of them had \
            left",
        if b_waits && one_reader_left { "waited" } else { "did not wait" },
    );
    let reproduced = a_bought && stock.stock == 4 && b_bought && b_waits && one_reader_left && sharing == 2;
    observation.finding =
        all_waited.then_some(if reproduced { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}
