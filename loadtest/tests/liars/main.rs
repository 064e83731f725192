//! The verdict cannot be lied to: a small shop in memory keeps the contract except for one lie, and is caught
//! by the check that is there for it, every time. The same shop without a lie is correct, every time.

mod http;
mod shop;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use loadtest::evidence::Broken;
use loadtest::report::RunReport;
use loadtest::run::{self, FaultSource};
use loadtest::scenario::{Amount, Scenario};
use loadtest::verdict::{CheckName, Status, Verdict};
use tokio::task::JoinSet;

use crate::http::open;
use crate::shop::Lie;

/// How often each shop is judged.
const TIMES: usize = 10;

/// How many kinds of lies are tried at a time.
const AT_ONCE: usize = 3;

fn fault(from_ms: u64, until_ms: u64) -> Broken {
    let ns = |ms: u64| ms * 1_000_000;
    Broken { what: "a fault".into(), from: ns(from_ms), until: Some(ns(until_ms)), costs_leases: true }
}

/// Judges a shop that tells this lie.
async fn judge(lie: Lie) -> RunReport {
    let (clients, _servers) = open(lie).await;
    let sold_out = !matches!(lie, Lie::UnitsAreKept | Lie::RestockTwice | Lie::RestockIsLost);
    let scenario = Scenario {
        buyers: 16,
        amount: Amount::Orders(600),
        stock: if sold_out { 400 } else { 10_000 },
        replays: 0.1,
        twins: 0.1,
        reads: 0.2,
        cancels: if sold_out { 0.0 } else { 0.1 },
        restocks: if sold_out { 0.0 } else { 0.1 },
        timeout: Duration::from_secs(2),
        ..Scenario::default()
    };
    let (scenario, faults) = match lie {
        Lie::NeverRecovers => {
            let scenario =
                Scenario { amount: Amount::For(Duration::from_secs(12)), stock: 1_000_000, ..scenario };
            (scenario, FaultSource::Declared(vec![fault(100, 600)]))
        }
        // Something was broken, at another time.
        Lie::HoldsOverlap => (scenario, FaultSource::Declared(vec![fault(1, 2)])),
        Lie::KeyIsLost | Lie::AnswerIsLost => (scenario, FaultSource::Declared(vec![fault(0, 10_000)])),
        _ => (scenario, FaultSource::None),
    };
    // Long enough for leases of half a second, and a second more, to end before holds overlap; for an answer
    // to arrive before the order is sent that takes its place; and for what was read of some time ago to be
    // older than the reading took.
    if matches!(lie, Lie::HoldsOverlap | Lie::OrdersSwap | Lie::StaleLockedRead | Lie::StaleRead) {
        let scenario = Scenario { rate: Some(150.0), ..scenario };
        return run::fire(&clients, &scenario, &Arc::default(), faults).await.expect("a run");
    }
    run::fire(&clients, &scenario, &Arc::default(), faults).await.expect("a run")
}

/// Judges many times at once.
async fn judge_often(lie: Lie) -> Vec<RunReport> {
    let mut runs = JoinSet::new();
    for _ in 0..TIMES {
        runs.spawn(judge(lie));
    }
    runs.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_shop_is_correct_every_time() {
    for lie in [Lie::None, Lie::AnswerIsLost] {
        for run in judge_often(lie).await {
            let wrong: Vec<_> = run
                .checks
                .iter()
                .filter(|check| matches!(check.status, Status::Fail | Status::Unknown))
                .collect();
            assert_eq!((run.verdict, wrong), (Verdict::Correct, Vec::new()), "{lie:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_that_lies_is_caught_every_time() {
    let lies = [
        (Lie::ConstantToken, CheckName::TokensIncrease),
        (Lie::TokensBeginAnew, CheckName::TokensIncrease),
        (Lie::KeyIsLost, CheckName::OncePerKey),
        (Lie::TwinsBuyTwice, CheckName::OncePerKey),
        (Lie::ReplayIsAnother, CheckName::OncePerKey),
        (Lie::RefusalCommits, CheckName::NothingRefusedWasSold),
        (Lie::AnswerDiffers, CheckName::AnswersAsStored),
        (Lie::HoldsOverlap, CheckName::NoOverlappingHolds),
        (Lie::OneTooMany, CheckName::NotOversold),
        (Lie::OrderIsLost, CheckName::NothingLost),
        (Lie::OrderIsInvented, CheckName::NothingInvented),
        (Lie::FalseSoldOut, CheckName::NoFalseSoldOut),
        (Lie::UnitsAreKept, CheckName::Balanced),
        (Lie::OrdersSwap, CheckName::Linearizable),
        (Lie::StaleLockedRead, CheckName::Linearizable),
        (Lie::StaleRead, CheckName::Linearizable),
        (Lie::RestockTwice, CheckName::AdjustmentsKept),
        (Lie::RestockIsLost, CheckName::AdjustmentsKept),
        (Lie::LockIsLeft, CheckName::AllAnswered),
        (Lie::NoAnswer, CheckName::AllAnswered),
        (Lie::NeverRecovers, CheckName::Available),
    ];
    for some in lies.chunks(AT_ONCE) {
        join_all(some.iter().map(|(lie, check)| assert_caught(*lie, *check))).await;
    }
}

async fn assert_caught(lie: Lie, check: CheckName) {
    let runs = judge_often(lie).await;
    let caught = runs.iter().filter(|run| run.failed(check).is_some()).count();
    let failed: Vec<_> = runs[0].checks.iter().filter(|check| check.status == Status::Fail).collect();
    assert_eq!(caught, TIMES, "{lie:?} was to be caught by {check}; {failed:#?}");
    assert!(runs.iter().all(|run| run.verdict == Verdict::Violated), "{lie:?}");
}
