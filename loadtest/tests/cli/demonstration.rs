//! The demonstration.

use loadtest::report::Report;
use loadtest::verdict::{CheckName, Status, Verdict};
use order_service::config::StrategyName;

use crate::program::{code, loadtest, run_of};

#[test]
fn the_demonstration_shows_who_oversells_and_who_does_not() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = loadtest(&["demo", "--json", file.path().to_str().unwrap()]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 0, "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    let report: Report = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    for strategy in [StrategyName::None, StrategyName::Local] {
        let run = run_of(&report, strategy);
        assert_eq!(run.verdict, Verdict::Violated);
        assert!(run.oversold() > 0, "{strategy}");
        let witness = &run.failed(CheckName::NoDuplicateReads).expect("a witness").detail;
        assert!(witness.contains("both read"), "{witness}");
        assert!(printed.contains(witness.as_str()), "the witness is printed");
    }
    let is_safe = |strategy: &StrategyName| !matches!(strategy, StrategyName::None | StrategyName::Local);
    for strategy in StrategyName::ALL.into_iter().filter(is_safe) {
        let run = run_of(&report, strategy);
        assert_eq!(run.verdict, Verdict::Correct, "{strategy}: {:?}", run.checks);
        assert_eq!((run.units_sold, run.oversold_units), (Some(run.stock), Some(0)), "{strategy}");
        assert!(run.checks.iter().all(|check| matches!(check.status, Status::Pass | Status::NotApplicable)));
        assert!(run.replays > 0 && run.replica_share.len() == 3, "{strategy}: {:?}", run.replica_share);
    }
    assert_eq!(report.not_run, []);
}
