//! The database is gone, and everything with it.

use lab::ServerKind;
use order_service::config::StrategyName;

use super::fixtures::{REQUEST_TIMEOUT, Shop, Victim, seconds};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::attempt::{FailureReason, OutcomeGroup};
use crate::problem::ProblemKind;
use crate::verdict::{CheckName, Verdict};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "database-spof",
    title: "The database is gone",
    claim: "When the database is gone the whole system is. (It must fail fast and clearly, and lose \
        nothing.)",
    setup: "two replicas on PostgreSQL, a hundred orders a second, a request may take 3 s; the server is \
        killed and started again four seconds later",
    advice: Advice::if_reproduced(
        "While the orders' database is down you cannot sell, wherever the lock is kept. So see to it \
         that every request fails soon and clearly (a time-out on each call), and have a standby for \
         the database.",
    ),
    needs: &[ServerKind::Postgres],
    run: |timeline| Box::pin(run(timeline)),
};

/// What an order may be answered meanwhile.
const CLEAR: [ProblemKind; 5] = [
    ProblemKind::DependencyDown,
    ProblemKind::LockTimeout,
    ProblemKind::OutcomeUnknown,
    ProblemKind::Overloaded,
    ProblemKind::IdempotencyInFlight,
];

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let mut shop = Shop::open(StrategyName::Database).await?;
    let loss = shop.lose(Victim::TheOne, &observation.timeline).await?;
    let run = &loss.run;
    let told: Vec<_> = run.failures.iter().map(|(why, times)| format!("{why} {times}×")).collect();
    let of = |outcome: OutcomeGroup| run.latencies.by_outcome.get(&outcome).copied().unwrap_or_default();
    let outcomes = [OutcomeGroup::Accepted, OutcomeGroup::Failed, OutcomeGroup::Unknown];
    let longest_ms = outcomes.map(|outcome| of(outcome).service.max);
    let longest_ms = longest_ms.into_iter().fold(0.0, f64::max);
    let lost = run.failed(CheckName::NothingLost).is_some();
    observation.figure("confirmed while it was gone", loss.confirmed);
    observation.figure("what orders were told instead", told.join(", "));
    observation
        .figure("half of them were told within", format!("{:.0} ms", of(OutcomeGroup::Failed).service.p50));
    observation.figure("the longest that anybody waited", format!("{longest_ms:.0} ms"));
    observation.figure("the longest time without a confirmed order", seconds(loss.gap));
    observation.figure(
        "orders confirmed, and found in the database afterwards",
        format!("{}, {}", run.accepted, if lost { "not all" } else { "all" }),
    );
    let gone = loss.confirmed == 0 && !loss.shows;
    let is_clear = |why: &FailureReason| matches!(why, FailureReason::Problem(kind) if CLEAR.contains(kind));
    let clear = !told.is_empty() && run.failures.keys().all(is_clear);
    // A commit that has begun is waited for a little longer than the request's own time.
    let fast = longest_ms <= (REQUEST_TIMEOUT.as_secs_f64() + 0.5) * 1e3;
    observation.observed = format!(
        "without its database the shop {}; it {} and {}; {}",
        if gone { "sold and showed nothing" } else { "went on in part" },
        if clear { "said so in every answer" } else { "did not say so in every answer" },
        if fast {
            "kept no order waiting beyond the limit"
        } else {
            "kept an order waiting beyond the limit"
        },
        if lost { "confirmed orders were lost" } else { "no confirmed order was lost" },
    );
    observation.explanation = Some(
        "This is no property of the lock: the orders themselves are in that database, so a shop whose lock \
         is elsewhere is just as closed when it is gone. What the lock table adds is no further server that \
         can fail."
            .into(),
    );
    let reproduced = gone && clear && fast && !lost && run.verdict != Verdict::Violated;
    observation.finding = Some(if reproduced { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}
