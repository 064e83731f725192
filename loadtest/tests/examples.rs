//! The examples of shops that are not ours, as far as they take seconds: `make shops` has all of them.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use loadtest::shop::ShopReport;
use loadtest::verdict::Verdict;

/// Runs an example, whose shop is installed from its registry the first time.
fn example(name: &str, arguments: &[&str]) -> (Output, Option<ShopReport>) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).join("run");
    let mut command = Command::new(script);
    command.args(arguments).arg("--json").arg(file.path()).env("LOADTEST", support::program());
    let output = command.output().expect("the script runs");
    let report = std::fs::read(file.path()).ok().and_then(|json| serde_json::from_slice(&json).ok());
    (output, report)
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned()).concat()
}

#[test]
fn django_oscar_oversells_once_its_buyers_come_at_the_same_time() {
    // As many as fit at once wait for each other before they place their orders.
    let (output, report) =
        example("django-oscar", &["--stock", "3", "--orders", "8", "--rungs", "8", "--rendezvous"]);
    let report = report.unwrap_or_else(|| panic!("there is no report: {}", said(&output)));
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert!(report.headline.starts_with("OVERSOLD by "), "{report}");
    let [control, together] = &report.runs[..] else { panic!("two runs: {report}") };
    assert_eq!((control.verdict, control.sold), (Verdict::Correct, Some(3)), "{report}");
    assert!(together.oversold > 0 && together.unknown == 0, "{report}");
}

#[test]
fn our_own_example_is_run_by_its_script() {
    for (strategy, code) in [("none", 1), ("database", 0)] {
        let (output, report) = example("stocklock", &["--strategy", strategy, "--rungs", "20"]);
        let report = report.unwrap_or_else(|| panic!("there is no report: {}", said(&output)));
        assert_eq!(output.status.code(), Some(code), "{strategy}: {report}");
        assert!(report.runs.iter().all(|run| run.resent > 0 || run.bought == 0), "{strategy}: {report}");
    }
}
