//! Do I need a separate lock at all?

use std::time::Instant;

use order_service::config::StrategyName;

use super::fixtures::excerpt;
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::compare::{Plan, compare};
use crate::fleet::StoreKind;
use crate::scenario::{Amount, Scenario};
use crate::verdict::Verdict;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "row-lock",
    title: "Is the database's own row lock enough?",
    claim: "(Readers:) locking the row, or comparing and setting the stock, is enough: it needs no lock \
        service.",
    setup: "the same load under the lock table, the row's own lock and compare-and-set, beside no lock; \
        three replicas",
    advice: Advice::if_reproduced(
        "If the stock is a row in one database, you need no lock service: lock the row, or compare and \
         set its version. Take a distributed lock when the work spans several systems, or to keep the \
         crowd away from the database.",
    ),
    needs: &[],
    run: |timeline| Box::pin(run(timeline)),
};

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    use StrategyName::{Database, None, Optimistic, Row};
    let plan = Plan {
        strategies: vec![None, Database, Row, Optimistic],
        store: StoreKind::Sqlite,
        replicas: 3,
        redis_servers: 1,
        repeat: 1,
        scenario: Scenario { stock: 1_500, amount: Amount::Orders(3_000), ..Scenario::default() },
        overrides: Vec::new(),
        faults: Default::default(),
        control: false,
    };
    let mut observation = Observation::of(timeline);
    let begun = Instant::now();
    let report = compare(&plan).await?;
    for run in &report.runs {
        excerpt(&observation.timeline.scene(run.strategy.to_string()), begun, run);
        observation.figures.push((
            run.strategy.to_string(),
            format!(
                "{}, {:.0} orders/s, p99 {:.1} ms, {} stale writes refused",
                run.sold_in_words(|units| units.to_string()),
                run.accepted_per_second,
                run.latency_ms.p99,
                run.lock.stale_writes_rejected
            ),
        ));
    }
    let control = report.runs.iter().find(|run| run.strategy == None);
    let sensitive = control.is_some_and(|run| run.oversold() > 0);
    let others = report.runs.iter().filter(|run| run.strategy != None);
    let flawless = others.clone().all(|run| run.verdict == Verdict::Correct);
    let rate = |name: StrategyName| {
        let run = report.runs.iter().find(|run| run.strategy == name);
        run.map_or(0.0, |run| run.accepted_per_second)
    };
    observation.observed = format!(
        "{}; orders/s as a multiple of the lock table's: row {:.2}, optimistic {:.2}",
        if flawless { "each sold exactly what there was" } else { "not all were right" },
        rate(Row) / rate(Database),
        rate(Optimistic) / rate(Database),
    );
    observation.finding = sensitive.then_some(if flawless { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}
