//! A, B and C, one record after the other.

use std::time::Duration;

use order_service::config::StrategyName;
use order_service::lock::DatabaseLock;
use tokio::time::sleep;

use super::event::{EventKind, Party};
use super::fixtures::{HoldWatch, SKU, is_of, order, until_held, until_waiting};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::fleet::{Fleet, FleetPlan};
use crate::problem::ProblemKind;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "lock-table",
    title: "A lock that is a row in a table",
    claim: "Stock 2; A wants 1, B wants 2, C wants 1, in that order. A's record goes into the lock table, A \
        buys, the record goes; B's record, not enough, it goes; C's record, C buys, nothing is left. Only \
        one insert can win.",
    setup: "three replicas that need 0.3 s for an order, one order per lock; the lock table is watched from \
        outside",
    advice: Advice::if_reproduced(
        "A unique key makes a table a correct lock: only one insert can win. Where you have a database \
         anyway, this takes no further server; give the record an expiry before you rely on it.",
    ),
    needs: &[],
    run: |timeline| Box::pin(run(timeline)),
};

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let plan = FleetPlan::new(StrategyName::Database, 3)?
        .with("checkout.think_time", "300ms")
        .with("checkout.max_batch", "1");
    let fleet = Fleet::start(plan).await?;
    let [one, two, three] = fleet.clients() else { unreachable!("three replicas were started") };
    one.create_product(SKU, "Hair dryer", 2).await?;
    let table = fleet.lock_table().await?;

    let mut observation = Observation::of(timeline);
    let timeline = &observation.timeline;
    let watch = HoldWatch::start(timeline, fleet.clients()).await?;
    let script = async {
        timeline.orders("A", 1, "replica-1");
        let a = order(one, "A", 1);
        let b = async {
            until_held(&table, is_of("replica-1")).await?;
            timeline.orders("B", 2, "replica-2");
            order(two, "B", 2).await
        };
        let c = async {
            until_waiting(three, 1).await?;
            timeline.orders("C", 1, "replica-3");
            order(three, "C", 1).await
        };
        tokio::join!(a, b, c)
    };
    let mut records = Records::default();
    let (a, b, c) = tokio::select! {
        told = script => told,
        error = records.watch(&table, timeline) => return Err(error),
    };
    let (a, b, c) = (a?, b?, c?);
    watch.look().await;
    for (who, told) in [("A", &a), ("B", &b), ("C", &c)] {
        timeline.note_reply(who, told);
    }
    let audit = one.audit(SKU).await?;
    fleet.stop().await?;

    observation.figures = vec![
        ("most records at once".into(), records.most.to_string()),
        ("records, in order".into(), records.seen.join(", ")),
        ("units sold".into(), audit.units_sold.to_string()),
    ];
    let left = |told: &super::fixtures::Reply| told.order().map(|order| order.stock_after);
    let in_order = records.replicas() == ["replica-1", "replica-2", "replica-3"];
    let is_refused = b.is(&ProblemKind::InsufficientStock);
    let as_claimed = left(&a) == Some(1) && is_refused && left(&c) == Some(0);
    observation.observed = format!(
        "A {}, B {}, C {}; never more than {} record at once",
        if left(&a) == Some(1) { "bought" } else { "did not" },
        if is_refused { "was told there is not enough" } else { "was not refused" },
        if left(&c) == Some(0) { "bought the last" } else { "did not" },
        records.most
    );
    observation.finding = in_order.then_some(if as_claimed && records.most == 1 {
        Finding::Reproduced
    } else {
        Finding::Refuted
    });
    Ok(observation)
}

/// The records that were seen in the lock table.
#[derive(Default)]
struct Records {
    seen: Vec<String>,
    most: usize,
}

impl Records {
    /// Looks at the table until the future is dropped; ends only with an error.
    async fn watch(&mut self, table: &DatabaseLock, timeline: &Timeline) -> anyhow::Error {
        loop {
            let holders = match table.holders().await {
                Ok(holders) => holders,
                Err(error) => return error.into(),
            };
            self.most = self.most.max(holders.len());
            for holder in holders {
                let token = holder.token.map_or(0, |token| token.0);
                let record = format!("{token} by {}", holder.replica.unwrap_or_default());
                if self.seen.last() != Some(&record) {
                    let what = format!("the lock table holds record {record}");
                    let label = format!("record {record}");
                    timeline.mark(EventKind::Note, &Party::lock("lock table"), &label, what);
                    self.seen.push(record);
                }
            }
            sleep(Duration::from_millis(3)).await;
        }
    }

    fn replicas(&self) -> Vec<&str> {
        self.seen.iter().filter_map(|record| record.split(' ').next_back()).collect()
    }
}
