//! Ctrl-C.

use std::process::{Command, Stdio};

use loadtest::report::Report;

use crate::program::{code, deployment, interrupt};
use crate::support;

/// How many orders a replica has answered.
async fn orders_at(client: &loadtest::client::Client) -> u64 {
    let metrics = client.metrics().await.expect("metrics");
    let counted =
        |line: &&str| line.starts_with("stocklock_http_requests") && line.contains("route=\"/v1/orders\"");
    let counts = metrics.lines().filter(counted);
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_interrupted_is_judged_by_what_was_done() {
    let lab = lab::Lab::new().unwrap();
    for (strategy, expected) in [("none", 1), ("row", 0)] {
        let file = format!("{strategy}.db");
        let (_replicas, targets) = deployment(strategy, &[&file, &file], &lab).await;
        let json = lab.file("report.json");
        let mut load = tokio::process::Command::new(support::program());
        load.args(["run", "--token", "t", "--orders", "10000000", "--stock", "50", "--rate", "500"]);
        load.args(["--target", &targets[0], "--target", &targets[1], "--json"]).arg(&json);
        let load = load.stdout(Stdio::piped()).spawn().unwrap();
        // In the middle of it: when more was sold than there is, or was refused.
        let client = loadtest::client::Client::new(&targets[0], "t");
        while orders_at(&client).await < 60 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        interrupt(load.id().unwrap());
        let output = load.wait_with_output().await.unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(code(&output), expected, "{strategy}: {printed}");
        assert!(printed.contains("Stopped before the end"), "{printed}");
        let report: Report = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        assert!(report.stopped && report.runs[0].stopped && report.runs[0].accepted > 0, "{printed}");
        assert_eq!(report.runs[0].oversold() > 0, strategy == "none", "{printed}");
    }
}

#[test]
fn what_had_no_turn_before_the_interruption_is_not_as_expected() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let json = ["--json", file.path().to_str().unwrap()];
    let load = ["compare", "--strategies", "row,optimistic", "--orders", "10000000", "--stock", "50"];
    let load =
        Command::new(support::program()).args([&load[..], &json].concat()).stdout(Stdio::piped()).spawn();
    let load = load.unwrap();
    // When it has begun.
    let children = format!("/proc/{0}/task/{0}/children", load.id());
    let threads = format!("/proc/{}/task", load.id());
    while !std::fs::read_dir(&threads).unwrap().flatten().any(|thread| {
        std::fs::read_to_string(thread.path().join("children")).is_ok_and(|children| !children.is_empty())
    }) {
        assert!(std::path::Path::new(&children).exists(), "it has ended");
        std::thread::yield_now();
    }
    interrupt(load.id());
    let output = load.wait_with_output().unwrap();
    assert_eq!(code(&output), 2, "{output:?}");
    let report: Report = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    assert!(report.stopped && report.not_run.iter().any(|not_run| not_run.reason.contains("stopped")));
}
