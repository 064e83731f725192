//! The bench as a person meets it. How fast anything is does not matter here.

mod support;

use std::process::Command;

use loadtest::bench::Report;

#[test]
fn a_bench_measures_what_is_asked_for_and_audits_it() {
    let directory = tempfile::tempdir().unwrap();
    let (json, markdown) = (directory.path().join("bench.json"), directory.path().join("bench.md"));
    let mut bench = Command::new(support::program());
    bench.args(["bench", "--rounds", "1", "--seconds", "1", "--only", "one-client/optimistic"]);
    let output = bench.arg("--json").arg(&json).arg("--markdown").arg(&markdown).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let code = output.status.code();
    assert!([Some(0), Some(99)].contains(&code), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    let report: Report = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let [group] = &report.groups[..] else { panic!("one group was asked for: {report:?}") };
    let [row] = &group.rows[..] else { panic!("one row was asked for: {group:?}") };
    assert_eq!(row.name, "one-client/optimistic");
    assert!(row.figure.median > 0.0 && row.reference.unwrap().median > 0.0, "{row:?}");
    assert!(group.violations.is_empty() && group.not_measured.is_empty(), "{group:?}");
    assert_eq!(code == Some(99), row.is_missed());
    assert!(printed.contains("pgbench -c 1"), "{printed}");
    assert!(std::fs::read_to_string(markdown).unwrap().contains("| `one-client/optimistic` |"));
}

#[test]
fn what_is_not_installed_is_said_before_anything_is_measured() {
    let mut bench = Command::new(support::program());
    let output = bench.args(["bench", "--only", "generator,hot/redis"]).env("PATH", "/nowhere").output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty());
    for command in ["apt-get install redis-server", "apt-get install wrk", "cargo install oha --locked"] {
        assert!(said.contains(command), "{command} in {said}");
    }
}
