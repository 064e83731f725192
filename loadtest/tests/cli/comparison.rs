//! Strategies side by side.

use loadtest::report::Report;
use loadtest::verdict::{CheckName, Status, Verdict};
use order_service::config::StrategyName;

use crate::program::{code, compared, loadtest, status};

#[test]
fn every_strategy_is_judged_on_postgresql() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let arguments =
        ["compare", "--store", "postgres", "--buyers", "128", "--orders", "1500", "--stock", "700"];
    let output = loadtest(&[&arguments[..], &["--json", file.path().to_str().unwrap()]].concat());
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 0, "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    let report: Report = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    assert_eq!((report.runs.len(), report.not_run.len()), (StrategyName::ALL.len(), 0));
    for run in &report.runs {
        assert_eq!(run.store, "postgres");
        let is_broken = run.strategy == StrategyName::None || run.strategy == StrategyName::Local;
        assert_eq!(run.oversold() > 0, is_broken, "{printed}");
        assert!(run.checks.iter().all(|check| check.status != Status::Unknown), "{:?}", run.checks);
    }
}

#[test]
fn mixed_quantities_leave_less_than_anybody_wanted() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let arguments =
        ["compare", "--strategies", "none,database,optimistic", "--quantity", "2..5", "--stock", "1001"];
    let output =
        loadtest(&[&arguments[..], &["--orders", "1000", "--json", file.path().to_str().unwrap()]].concat());
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stdout));
    let report: Report = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    for run in &report.runs[1..] {
        assert!(
            (Some(1000)..=Some(1001)).contains(&run.units_sold),
            "{} sold {:?}",
            run.strategy,
            run.units_sold
        );
    }
}

#[test]
fn a_control_that_does_not_oversell_proves_nothing() {
    // One buyer after the other cannot oversell, lock or no lock.
    let arguments =
        ["compare", "--strategies", "none,row", "--buyers", "1", "--orders", "20", "--stock", "10"];
    let output = loadtest(&arguments);
    assert_eq!(code(&output), 2, "{}", String::from_utf8_lossy(&output.stdout));
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("sensitive: not proven"), "{printed}");
    // And of the one without a lock, too, it is said why that is not what it is for.
    assert!(printed.contains("this load proves nothing"), "{printed}");
}

#[test]
fn a_control_is_run_that_was_not_asked_for() {
    let alone = ["--strategies", "row", "--buyers", "1", "--orders", "20"];
    let (code, printed, report) = compared(&alone);
    assert_eq!((code, report.runs.len()), (2, 2), "{printed}");
    assert_eq!(status(&report.runs[0], CheckName::Sensitive), Status::Unknown);
    assert!(report.runs[1].is_control && printed.contains("none (control)"), "{printed}");
    // A stock that is too large to be oversold shows as well that updates are lost.
    let large = ["--strategies", "row", "--orders", "500", "--stock", "100000"];
    let (code, printed, report) = compared(&large);
    assert_eq!(code, 0, "{printed}");
    assert_eq!(status(&report.runs[0], CheckName::Sensitive), Status::Pass);
    let control = &report.runs[1];
    assert_eq!((control.oversold_units, control.verdict), (Some(0), Verdict::Violated), "{printed}");
    let (code, printed, report) = compared(&[&large[..], &["--no-control"]].concat());
    assert_eq!((code, report.runs.len()), (0, 1), "{printed}");
    assert_eq!(status(&report.runs[0], CheckName::Sensitive), Status::NotApplicable);
}

#[test]
fn a_shop_is_topped_up_for_ever_if_that_is_asked_for() {
    let load = ["--strategies", "row", "--no-control", "--orders", "3000", "--stock", "100"];
    let (code, printed, report) = compared(&[&load[..], &["--top-up", "always"]].concat());
    assert_eq!(code, 0, "{printed}");
    let run = &report.runs[0];
    assert!(run.accepted > 2_000 && run.supply >= run.units_sold, "{printed}");
}

#[test]
fn the_rate_is_that_of_the_time_in_which_there_was_something_to_sell() {
    let (_, printed, report) =
        compared(&["--strategies", "row", "--no-control", "--duration", "6s", "--stock", "300"]);
    let run = &report.runs[0];
    assert_eq!(run.units_sold, Some(300), "{printed}");
    assert!(run.seconds >= 6.0 && run.availability.selling_ms < 5_000.0, "{:?}", run.availability);
    let rate = 300.0 / (run.availability.selling_ms / 1e3);
    assert!((run.accepted_per_second - rate).abs() < 0.01, "{} and {rate}", run.accepted_per_second);
    // Where no stock is given, there is something to sell for most of a given time.
    let (_, printed, report) =
        compared(&["--strategies", "row", "--no-control", "--duration", "3s", "--quantity", "100"]);
    assert!(report.runs[0].availability.selling_ms >= 2_400.0, "{printed}");
    assert!(report.runs[0].supply > Some(2_000), "{printed}");
}

#[test]
fn restocks_cancellations_and_reads_take_their_place_in_one_history() {
    for store in ["sqlite", "postgres"] {
        let file = tempfile::NamedTempFile::new().unwrap();
        // The flags of an earlier version are known for one more.
        let (reads, timeout) =
            if store == "sqlite" { ("--looks", "--patience") } else { ("--reads", "--timeout") };
        let load = ["--quantity", "1..3", "--cancels", "0.2", "--restocks", "0.05"];
        let load = [&load[..], &[reads, "0.3", timeout, "9s"]].concat();
        let arguments =
            ["compare", "--strategies", "none,database,redis,row", "--store", store, "--orders", "1500"];
        let rest = ["--stock", "1000", "--json", file.path().to_str().unwrap()];
        let output = loadtest(&[&arguments[..], &load, &rest].concat());
        assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stdout));
        let report: Report = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
        let command = report.command.as_deref().unwrap_or_default();
        assert!(command.contains("--reads 0.3") && command.contains("--timeout 9s"), "{command}");
        for run in report.runs.iter().filter(|run| run.strategy != StrategyName::None) {
            for name in [CheckName::Linearizable, CheckName::AdjustmentsKept, CheckName::Balanced] {
                let check = run.check(name).unwrap();
                assert_eq!(check.status, Status::Pass, "{store}, {}: {check:?}", run.strategy);
            }
        }
    }
}

#[test]
fn a_missed_threshold_is_exit_code_99() {
    let arguments =
        ["compare", "--strategies", "row", "--orders", "50", "--stock", "100", "--max-p99", "1us"];
    let output = loadtest(&arguments);
    assert_eq!(code(&output), 99);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("threshold missed: row: the p99 is"), "{printed}");
}
