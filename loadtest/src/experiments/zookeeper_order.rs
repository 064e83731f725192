//! First come, first served: by the numbers of the nodes.

use lab::ServerKind;
use order_service::config::StrategyName;

use super::fixtures::{HoldWatch, SKU, order, until_waiting};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::fleet::{Fleet, FleetPlan};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "zookeeper-order",
    title: "First come, first served, by numbered nodes",
    claim: "A, B and C order at midnight sharp: each gets an ephemeral sequential node under shared_lock; \
        the smallest number has the lock, the others watch. They buy in the order of their numbers.",
    setup: "three replicas that need 0.4 s for an order; A, B and C order at the same moment. Each order \
        keeps the fencing token of its lock: the number of the transaction that made its node, which grows \
        with the node's",
    advice: Advice::if_reproduced(
        "Numbered nodes serve those who wait in the order of their arrival, and a number that grows \
         with each hold is a fencing token: hand it to your write, which can then refuse an older one.",
    ),
    needs: &[ServerKind::Zookeeper],
    run: |timeline| Box::pin(run(timeline)),
};

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let plan = FleetPlan::new(StrategyName::Zookeeper, 3)?
        .with("checkout.think_time", "400ms")
        .with("checkout.max_batch", "1")
        .with("lock.wait", "10s")
        .with("server.request_timeout", "15s");
    let fleet = Fleet::start(plan).await?;
    let [one, two, three] = fleet.clients() else { unreachable!("three replicas were started") };
    one.create_product(SKU, "Hair dryer", 5).await?;
    let timeline = &observation.timeline;
    let watch = HoldWatch::start(timeline, fleet.clients()).await?;
    for (buyer, replica) in [("A", "replica-1"), ("B", "replica-2"), ("C", "replica-3")] {
        timeline.orders(buyer, 1, replica);
    }
    let all_in_line = async {
        until_waiting(three, 2).await?;
        one.lock(SKU).await.map_err(anyhow::Error::from)
    };
    let (a, b, c, state) =
        tokio::join!(order(one, "A", 1), order(two, "B", 1), order(three, "C", 1), all_in_line);
    let state = state?;
    let told = [("A", a?), ("B", b?), ("C", c?)];
    watch.look().await;
    for (who, told) in &told {
        timeline.note_reply(who, told);
    }
    let mut orders: Vec<_> =
        told.iter().filter_map(|(who, told)| Some((*who, told.order()?.clone()))).collect();
    orders.sort_by_key(|(_, order)| order.version);
    let tokens: Vec<_> = orders.iter().filter_map(|(_, order)| order.lock.fencing_token).collect();
    let first = state.holders.first().and_then(|holder| holder.fencing_token);
    for (who, order) in &orders {
        let token = order.lock.fencing_token.unwrap_or_default();
        let sale = format!("node made by transaction {token:#x}, stock {}", order.stock_before);
        observation.figure(format!("{}. to buy: {who}", order.version), sale);
    }
    observation.figure(
        "the lock's directory when all had come",
        format!("1 holds (transaction {:#x}), {} wait", first.unwrap_or_default(), state.waiting),
    );
    let by_number = tokens.is_sorted() && tokens.len() == 3;
    let names: Vec<_> = orders.iter().map(|(who, _)| *who).collect();
    observation.observed = format!(
        "they bought in the order {}, {} the order of their nodes",
        names.join(", "),
        if by_number { "which is" } else { "which is not" }
    );
    // The one who holds while the others wait must be the one with the smallest number.
    let smallest_holds = first.is_some() && first == tokens.first().copied();
    let all_waited = state.waiting == 2;
    observation.finding = all_waited.then_some(if by_number && smallest_holds {
        Finding::Reproduced
    } else {
        Finding::Refuted
    });
    fleet.stop().await?;
    Ok(observation)
}
