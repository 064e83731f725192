//! The claims of the course, tried by the program.

use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use loadtest::experiments::{ExperimentReport, Finding};

/// One at a time: what they measure, the others would disturb.
static TURN: Mutex<()> = Mutex::new(());

fn experiment(names: &[&str], path: Option<&str>) -> (Output, Vec<ExperimentReport>) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.arg("experiment").args(names).arg("--json").arg(file.path());
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let output = command.output().expect("the program runs");
    let reports = serde_json::from_slice(&std::fs::read(file.path()).expect("a file"));
    let said = String::from_utf8_lossy(&output.stderr);
    (output.clone(), reports.unwrap_or_else(|error| panic!("{error}: {said}")))
}

#[test]
fn the_experiments_come_to_a_finding() {
    let (output, reports) = experiment(&["all"], None);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert_eq!(reports.len(), 29);
    for report in reports {
        let expected: &[_] = match report.name.as_str() {
            // Redis has no queue; a counter beside the orders is not one with them; servers that forget, and
            // clocks that jump, are of no account under ZooKeeper; a waiter looks again.
            "redis-queue" | "redis-counter" | "redis-redlock" | "zookeeper-waiter-crash" => {
                &[Finding::Refuted]
            }
            // Who is faster is up to the machine.
            "database-io" | "comparison" => &[Finding::Reproduced, Finding::Refuted],
            _ => &[Finding::Reproduced],
        };
        assert!(expected.contains(&report.finding), "{report}");
        assert!(!report.observed.is_empty() && !report.timeline.is_empty(), "{report}");
        assert!(report.finding == Finding::Reproduced || report.explanation.is_some(), "{report}");
        if ["redis-expiry", "redis-failover", "redis-redlock", "zookeeper-session"]
            .contains(&report.name.as_str())
        {
            assert_only_the_guard_helps(&report);
        }
    }
}

/// Two at once oversell without the guard, and not with it.
fn assert_only_the_guard_helps(report: &ExperimentReport) {
    let figure = |guard: &str| {
        let found = report.figures.iter().rfind(|(name, _)| name.ends_with(guard));
        found.map(|(_, figure)| figure.as_str()).expect("the figure")
    };
    let off = figure("guard off");
    assert!(off.starts_with("3 sold of 2, 0 stale writes refused; A's order "), "{off}");
    let on = figure("guard on");
    assert!(on.contains("sold of 2, 1 stale writes refused") && !on.starts_with('3'), "{on}");
}

#[test]
fn without_its_server_an_experiment_is_not_run_and_says_what_would_install_it() {
    let (output, reports) = experiment(&["redis-setnx", "reentrancy"], Some("/nonexistent"));
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    let findings: Vec<_> = reports.iter().map(|report| report.finding).collect();
    assert_eq!(findings, [Finding::NotRun, Finding::Reproduced], "{printed}");
    assert!(printed.contains("NOT RUN") && printed.contains("apt-get install redis-server"), "{printed}");
}
