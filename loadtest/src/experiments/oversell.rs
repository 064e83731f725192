//! Two in stock, three sold.

use order_service::config::StrategyName;

use super::event::{EventKind, Party};
use super::fixtures::{HoldWatch, Reply, SKU, order};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::fleet::{Fleet, FleetPlan};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "oversell",
    title: "Two hair dryers, three sold",
    claim: "Stock 2; A wants 1, B wants 2, at the same moment. Both read 2 and both orders go through: two \
        dryers, three sold. With a distributed lock, whoever comes second is told that there is not enough.",
    setup: "two replicas that need 0.5 s for an order; first without a lock, then with the lock table",
    advice: Advice::if_reproduced(
        "Whoever reads the stock and writes it later must keep everybody else out in between, or let \
         the database check again at the write. Try your own shop with two orders at once: one after \
         the other never shows it.",
    ),
    needs: &[],
    run: |timeline| Box::pin(run(timeline)),
};

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let without = observation.timeline.scene("without a lock");
    let (overlapped, sold) = shop(StrategyName::None, &without).await?;
    let with = observation.timeline.scene("with the lock table");
    let (_, sold_with_lock) = shop(StrategyName::Database, &with).await?;
    observation.observed =
        format!("without a lock {sold} were sold of 2, with the lock table {sold_with_lock}");
    observation.finding = overlapped.then_some(if sold == 3 && sold_with_lock <= 2 {
        Finding::Reproduced
    } else {
        Finding::Refuted
    });
    Ok(observation)
}

/// A and B order at the same moment. Returns whether both read the same stock (or one was kept from it), and
/// the units that the orders in the database add up to.
async fn shop(strategy: StrategyName, timeline: &Timeline) -> anyhow::Result<(bool, i64)> {
    let plan = FleetPlan::new(strategy, 2)?.with("checkout.think_time", "500ms");
    let fleet = Fleet::start(plan).await?;
    let clients = fleet.clients();
    clients[0].create_product(SKU, "Hair dryer", 2).await?;
    let watch = HoldWatch::start(timeline, clients).await?;
    timeline.orders("A", 1, "replica-1");
    timeline.orders("B", 2, "replica-2");
    let (a, b) = tokio::join!(order(&clients[0], "A", 1), order(&clients[1], "B", 2));
    let (a, b) = (a?, b?);
    watch.look().await;
    timeline.note_reply("A", &a);
    timeline.note_reply("B", &b);
    let audit = clients[0].audit(SKU).await?;
    let what = format!("the product says {} left, the orders say {} sold", audit.stock, audit.units_sold);
    let label = format!("{} left, {} sold of 2", audit.stock, audit.units_sold);
    timeline.mark(EventKind::Note, &Party::database(), &label, what);
    fleet.stop().await?;
    let read = |told: &Reply| told.order().map(|order| order.stock_before);
    Ok((read(&a) == read(&b), audit.units_sold))
}
