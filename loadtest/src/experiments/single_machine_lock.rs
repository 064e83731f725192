//! A lock inside one machine, on one machine and on three.

use order_service::config::StrategyName;

use super::{Experiment, Finding, Observation};
use crate::fleet::{Fleet, FleetPlan};
use crate::report::RunReport;
use crate::run;
use crate::scenario::{Amount, Scenario};
use crate::verdict::{CheckName, Verdict};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "single-machine-lock",
    claim: "A lock inside one machine cannot govern several machines: with several servers the outcome is \
        unpredictable. On one server it is right.",
    setup: "strategy local; 100 in stock, 32 buyers want 200; first one replica, then three",
    needs: &[],
    run: || Box::pin(run()),
};

async fn run() -> anyhow::Result<Observation> {
    let mut observation = Observation::default();
    let one = shop(1, &mut observation).await?;
    let three = shop(3, &mut observation).await?;
    observation.observed =
        format!("one replica sold {} of {}, three sold {}", sold(&one), one.stock, sold(&three));
    if let Some(witness) = three.failed(CheckName::NoDuplicateReads) {
        observation.timeline.note(witness.detail.clone());
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
    let run = run::fire(fleet.clients(), &scenario, &Default::default(), run::FaultSource::None).await?;
    fleet.stop().await?;
    let name = format!("{replicas} replica{}", if replicas == 1 { "" } else { "s" });
    observation.timeline.note(format!("{name}: {} ordered, {} accepted", run.attempts, run.accepted));
    observation.figures.push((name, format!("{} sold, oversold by {}", sold(&run), run.oversold())));
    Ok(run)
}

fn sold(run: &RunReport) -> String {
    run.units_sold.map_or_else(|| "an unknown number".into(), |units| units.to_string())
}
