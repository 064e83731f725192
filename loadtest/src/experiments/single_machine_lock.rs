//! A lock inside one machine, on one machine and on three.

use std::time::Instant;

use order_service::config::StrategyName;

use super::fixtures::excerpt;
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::fleet::{Fleet, FleetPlan};
use crate::report::RunReport;
use crate::run;
use crate::scenario::{Amount, Scenario};
use crate::verdict::{CheckName, Verdict};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "single-machine-lock",
    title: "A lock inside one process, on three servers",
    claim: "A lock inside one machine cannot govern several machines: with several servers the outcome is \
        unpredictable. On one server it is right.",
    setup: "strategy local; 100 in stock, 32 buyers want 200; first one replica, then three",
    advice: Advice::if_reproduced(
        "A mutex protects one process. As soon as a second replica runs, if only during a rolling \
         restart, you need a lock that all of them share, or a check in the database.",
    ),
    needs: &[],
    run: |timeline| Box::pin(run(timeline)),
};

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let (one, three) = (shop(1, &mut observation).await?, shop(3, &mut observation).await?);
    observation.observed =
        format!("one replica sold {} of {}, three sold {}", sold(&one), one.stock, sold(&three));
    if let Some(witness) = three.failed(CheckName::NoDuplicateReads) {
        observation.timeline.scene(name_of(3)).note(witness.detail.clone());
    }
    let served = three.replica_share.len();
    observation.finding =
        (served > 1).then_some(if one.verdict == Verdict::Correct && three.oversold() > 0 {
            Finding::Reproduced
        } else {
            Finding::Refuted
        });
    Ok(observation)
}

async fn shop(replicas: usize, observation: &mut Observation) -> anyhow::Result<RunReport> {
    let scenario = Scenario { buyers: 32, amount: Amount::Orders(200), stock: 100, ..Scenario::default() };
    // A batch takes a while, as an order does in the course; so the replicas do meet.
    let plan = FleetPlan::new(StrategyName::Local, replicas)?.with("checkout.think_time", "20ms");
    let fleet = Fleet::start(plan).await?;
    let timeline = observation.timeline.scene(name_of(replicas));
    let begun = Instant::now();
    let run = run::fire(fleet.clients(), &scenario, &Default::default(), run::FaultSource::None).await?;
    fleet.stop().await?;
    excerpt(&timeline, begun, &run);
    observation.figure(name_of(replicas), format!("{} sold, oversold by {}", sold(&run), run.oversold()));
    Ok(run)
}

fn name_of(replicas: usize) -> String {
    format!("{replicas} replica{}", if replicas == 1 { "" } else { "s" })
}

fn sold(run: &RunReport) -> String {
    run.units_sold.map_or_else(|| "an unknown number".into(), |units| units.to_string())
}
