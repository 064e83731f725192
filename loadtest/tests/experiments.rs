//! The claims of the course, tried by the program.

use std::process::{Command, Output};

use loadtest::experiments::{self, ExperimentReport, Finding};

fn experiment(names: &[&str], path: Option<&str>) -> (Output, Vec<ExperimentReport>) {
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

/// The names of every second experiment: two tests run at the same time, of which each has much to wait for.
fn every_second(first: usize) -> Vec<&'static str> {
    let all = experiments::choose(&["all".into()]).expect("there are some");
    assert_eq!(all.len(), 29);
    all.iter().skip(first).step_by(2).map(|experiment| experiment.name).collect()
}

#[test]
fn one_half_of_the_experiments_comes_to_a_finding() {
    assert_that_they_come_to_a_finding(&every_second(0));
}

#[test]
fn the_other_half_of_the_experiments_comes_to_a_finding() {
    assert_that_they_come_to_a_finding(&every_second(1));
}

fn assert_that_they_come_to_a_finding(names: &[&str]) {
    let (output, reports) = experiment(names, None);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert_eq!(reports.iter().map(|report| &*report.name).collect::<Vec<_>>(), names);
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
