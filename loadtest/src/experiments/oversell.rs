//! Two in stock, three sold.

use order_service::config::StrategyName;

use super::fixtures::{Reply, SKU, order};
use super::{Experiment, Finding, Observation};
use crate::fleet::{Fleet, FleetPlan};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "oversell",
    claim: "Stock 2; A wants 1, B wants 2, at the same moment. Both read 2 and both orders go through: two \
        dryers, three sold. With a distributed lock, whoever comes second is told that there is not enough.",
    setup: "two replicas that need 0.5 s for an order; first without a lock, then with the lock table",
    needs: &[],
    run: || Box::pin(run()),
};

async fn run() -> anyhow::Result<Observation> {
    let mut observation = Observation::default();
    observation.timeline.note("without a lock");
    let (overlapped, sold) = shop(StrategyName::None, &mut observation).await?;
    observation.timeline.note("with the lock table");
    let (_, sold_with_lock) = shop(StrategyName::Database, &mut observation).await?;
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
async fn shop(strategy: StrategyName, observation: &mut Observation) -> anyhow::Result<(bool, i64)> {
    let plan = FleetPlan::new(strategy, 2)?.with("checkout.think_time", "500ms");
    let fleet = Fleet::start(plan).await?;
    let clients = fleet.clients();
    clients[0].create_product(SKU, "Hair dryer", 2).await?;
    let timeline = &mut observation.timeline;
    timeline.note("A orders 1 from replica-1, B orders 2 from replica-2");
    let (a, b) = tokio::join!(order(&clients[0], "A", 1), order(&clients[1], "B", 2));
    let (a, b) = (a?, b?);
    timeline.note_reply("A", &a);
    timeline.note_reply("B", &b);
    let audit = clients[0].audit(SKU).await?;
    timeline.note(format!("the product says {} left, the orders say {} sold", audit.stock, audit.units_sold));
    fleet.stop().await?;
    let read = |told: &Reply| told.order().map(|order| order.stock_before);
    Ok((read(&a) == read(&b), audit.units_sold))
}
