//! The full verdict on each strategy, from our own generator's record: fast and wrong would be worth nothing.

use order_service::config::StrategyName;

use super::Plan;
use super::report::GroupReport;
use super::row::Row;
use crate::compare;
use crate::faults::Schedule;
use crate::fleet::StoreKind;
use crate::report::RunReport;
use crate::scenario::{Amount, Scenario};
use crate::verdict::Verdict;

/// The names of the rows.
pub(super) fn rows() -> Vec<String> {
    StrategyName::right().into_iter().map(name).collect()
}

fn name(strategy: StrategyName) -> String {
    format!("verdict/{strategy}")
}

/// Runs the strategies that are wanted once, with the broken shop beside them: the load must be one that it
/// does not survive.
pub(super) async fn measure(plan: &Plan, report: &mut GroupReport) -> anyhow::Result<()> {
    let wanted = StrategyName::right().into_iter().filter(|strategy| plan.wants(&name(*strategy)));
    let suite = compare::Plan {
        strategies: [StrategyName::None].into_iter().chain(wanted).collect(),
        store: StoreKind::Postgres,
        replicas: 2,
        redis_servers: 1,
        repeat: 1,
        // Half of them are refused.
        scenario: Scenario { amount: Amount::Orders(4_000), stock: 2_000, ..Scenario::default() },
        overrides: Vec::new(),
        faults: Schedule::default(),
        control: false,
    };
    let suite = compare::compare(&suite).await?;
    for run in &suite.runs {
        judge(run, report);
    }
    Ok(())
}

fn judge(run: &RunReport, report: &mut GroupReport) {
    let complaint = format!("{}: {} where {} was expected", run.strategy, run.verdict, run.expected);
    match run.verdict {
        _ if run.is_as_expected() => {}
        Verdict::Violated => report.violations.push(complaint),
        Verdict::Correct | Verdict::Inconclusive => report.not_measured.push(complaint),
    }
    if run.expected == Verdict::Correct {
        let (name, unit) = (format!("verdict/{}", run.strategy), format!("orders/s, {}", run.verdict));
        report.rows.push(Row::alone(&name, &unit, &[run.accepted_per_second], None));
    }
}
