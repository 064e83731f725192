//! An ensemble loses a server.

use lab::ServerKind;
use order_service::config::StrategyName;

use super::fixtures::{Loss, Shop, Victim, seconds};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::verdict::Verdict;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "zookeeper-ensemble",
    title: "An ensemble of three loses a server",
    claim: "No single point of failure: an ensemble of three loses one server, the leader even, and orders \
        go on.",
    setup: "two replicas on an ensemble of three, a hundred orders a second; a follower is killed and \
        started again four seconds later, then the leader; sessions of 4 s",
    advice: Advice::if_reproduced(
        "Run three servers on three machines, give the clients all addresses, and a session that \
         outlasts an election. The loss of one is then a short pause, and the orders' database is what \
         you have to look after next.",
    ),
    needs: &[ServerKind::Zookeeper],
    run: |timeline| Box::pin(run(timeline)),
};

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let mut shop = Shop::open(StrategyName::Zookeeper).await?;
    let timeline = &observation.timeline;
    let follower = shop.lose(Victim::Follower, &timeline.scene("a follower is lost")).await?;
    let leader = shop.lose(Victim::Leader, &timeline.scene("the leader is lost")).await?;
    for (who, loss) in [("a follower", &follower), ("the leader", &leader)] {
        observation.figure(
            format!("{who} gone for 4 s"),
            format!(
                "{} orders confirmed meanwhile, longest gap {}, {} refused, {} unknown",
                loss.confirmed,
                seconds(loss.gap),
                loss.run.failed,
                loss.run.unknown
            ),
        );
    }
    let goes_on = |loss: &Loss| loss.confirmed > 0 && loss.run.verdict != Verdict::Violated;
    observation.observed = format!(
        "orders {} without a follower, with a gap of at most {}, and {} without the leader, with one of {}",
        if goes_on(&follower) { "went on" } else { "did not go on" },
        seconds(follower.gap),
        if goes_on(&leader) { "went on" } else { "did not go on" },
        seconds(leader.gap),
    );
    observation.explanation = Some(
        "The gap is the time of the election and of the clients' reconnection. Sessions outlive it, since \
         the new leader gives each its full time-out again; and with the sessions, the locks. What remains a \
         single point of failure here is the orders' own database."
            .into(),
    );
    let reproduced = goes_on(&follower) && goes_on(&leader);
    observation.finding = Some(if reproduced { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}
