//! What goes where: to people, to programs, to other people's CI.

use std::collections::HashMap;
use std::process::Stdio;

use loadtest::report::Report;
use loadtest::verdict::Verdict;

use crate::program::{code, command, loadtest, printed, said};

/// A comparison that takes a second, and in which one is expected to oversell.
const COMPARE: [&str; 7] = ["compare", "--strategies", "none,row", "--orders", "300", "--stock", "150"];

#[test]
fn standard_output_takes_pure_json_and_people_read_elsewhere() {
    let output = loadtest(&[&COMPARE[..], &["--json", "-"]].concat());
    assert_eq!(code(&output), 0, "{}", said(&output));
    let report: Report = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    assert_eq!(report.runs.len(), 2);
    assert!(
        said(&output).contains("| row ") && said(&output).contains("1 of 2 strategies oversold: none"),
        "{output:?}"
    );
    let page = loadtest(&["report", "-", "--html", "-"]);
    assert_eq!(code(&page), 64, "nothing is no report: {page:?}");
}

#[test]
fn who_wants_quiet_gets_the_verdict_and_nothing_else() {
    let output = loadtest(&[&COMPARE[..], &["--quiet"]].concat());
    assert_eq!((code(&output), said(&output).as_str()), (0, ""));
    assert_eq!(printed(&output), "as expected: 1 of 2 strategies oversold: none\n");
    let limit = ["--strategies", "row", "--no-control", "--orders", "50", "--max-p99", "1us", "-q"];
    let output = loadtest(&[&["compare"], &limit[..]].concat());
    assert_eq!((code(&output), printed(&output).lines().count()), (99, 1), "{output:?}");
    assert!(printed(&output).starts_with("CORRECT · row"), "{output:?}");
    assert!(printed(&output).contains("the p99 is"), "{output:?}");
}

#[test]
fn a_load_whose_reader_has_gone_is_judged_all_the_same() {
    // One buyer after the other proves nothing.
    let load = ["compare", "--strategies", "none", "--buyers", "1", "--orders", "20", "--stock", "10"];
    let mut child =
        command(&load).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 2, "{output:?}");
    assert!(!said(&output).contains("panicked"), "{output:?}");
}

/// The elements of a document of JUnit's that matter here, as other readers see them.
fn junit_cases(xml: &str) -> HashMap<(String, String), String> {
    let document = scraper::Html::parse_fragment(xml);
    let select = |selector: &str| scraper::Selector::parse(selector).expect("a selector");
    let (suites, cases) = (select("testsuite"), select("testcase"));
    let mut found = HashMap::new();
    for suite in document.select(&suites) {
        for case in suite.select(&cases) {
            let name =
                |element: &scraper::ElementRef<'_>| element.attr("name").unwrap_or_default().to_owned();
            let kinds = ["failure", "error", "skipped"].into_iter();
            let kind = kinds.filter(|kind| case.select(&select(kind)).next().is_some()).collect::<String>();
            found.insert((name(&suite), name(&case)), kind);
        }
    }
    found
}

#[test]
fn ci_is_told_what_the_exit_code_says() {
    let directory = tempfile::tempdir().unwrap();
    let (xml, summary) = (directory.path().join("report.xml"), directory.path().join("summary.md"));
    let files = [format!("--junit={}", xml.display()), format!("--github-summary={}", summary.display())];
    let files = [files[0].as_str(), files[1].as_str()];
    // What has no lock is expected to oversell.
    let output = loadtest(&[&COMPARE[..], &files].concat());
    assert_eq!(code(&output), 0, "{}", said(&output));
    let cases = junit_cases(&std::fs::read_to_string(&xml).unwrap());
    let case = |suite: &str, name: &str| cases.get(&(suite.to_owned(), name.to_owned())).map(String::as_str);
    assert_eq!(
        (case("none", "not-oversold"), case("row", "not-oversold")),
        (Some(""), Some("")),
        "{cases:?}"
    );
    assert_eq!(case("row", "faults-struck"), Some("skipped"), "{cases:?}");
    assert!(cases.values().all(|kind| kind.is_empty() || kind == "skipped"), "{cases:?}");
    // One that loses its guard and its lock is not.
    let broken =
        ["compare", "--strategies", "row", "--no-control", "--orders", "50", "--min-rate", "1000000"];
    let output = loadtest(&[&broken[..], &files].concat());
    assert_eq!(code(&output), 99, "{}", said(&output));
    let cases = junit_cases(&std::fs::read_to_string(&xml).unwrap());
    assert_eq!(cases[&("thresholds".to_owned(), "threshold".to_owned())], "failure", "{cases:?}");
    // The summary is that of a job, to which each step adds.
    let text = std::fs::read_to_string(&summary).unwrap();
    assert_eq!(text.matches("<details>").count(), 2, "{text}");
    assert!(text.starts_with("## as expected: 1 of 2 strategies oversold: none\n\n| strategy "), "{text}");
    assert!(text.contains("- **thresholds**, threshold: row: "), "{text}");
    // GitHub says where it is.
    let own = directory.path().join("own.md");
    let mut command = command(&[&COMPARE[..], &["--github-summary"]].concat());
    let output = command.env("GITHUB_STEP_SUMMARY", &own).output().unwrap();
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert!(std::fs::read_to_string(own).unwrap().contains("All checks"));
}

#[test]
fn a_strategy_whose_server_does_not_start_does_not_take_the_others_results_with_it() {
    // The program is there, and does not run.
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("redis-server");
    std::fs::write(&program, "#!/bin/sh\nexit 3\n").unwrap();
    let mut permissions = std::fs::metadata(&program).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    std::fs::set_permissions(&program, permissions).unwrap();
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let arguments = ["compare", "--strategies", "none,redis,row", "--orders", "300", "--stock", "150"];
    let json = directory.path().join("report.json");
    let mut command = command(&[&arguments[..], &["--json", json.to_str().unwrap()]].concat());
    let output = command.env("PATH", path).output().unwrap();
    assert_eq!(code(&output), 2, "{}", said(&output));
    let report: Report = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let verdicts: Vec<_> = report.runs.iter().map(|run| run.verdict).collect();
    assert_eq!(verdicts, [Verdict::Violated, Verdict::Correct]);
    assert!(report.not_run[0].broke_off, "{:?}", report.not_run);
    assert!(printed(&output).contains("redis: broke off: "), "{}", printed(&output));
    // Each is told when it is done.
    assert!(
        said(&output).contains("none: OVERSOLD by ") && said(&output).contains("row: correct"),
        "{output:?}"
    );
}

#[test]
fn what_is_not_installed_is_listed_and_the_others_are_run() {
    let output = command(&["compare", "--strategies", "none,redis,row", "--orders", "600", "--stock", "300"])
        .env("PATH", "")
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert!(printed(&output).contains("redis: not run: Redis is not installed"), "{}", printed(&output));
}
