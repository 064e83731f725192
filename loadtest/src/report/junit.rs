//! Test cases as JUnit's XML, which CI systems read.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::cases::{Case, CaseOutcome, Suite};

/// The suites as JUnit's XML: what is not as it has to be is a failure, what could not be seen an error, and
/// what does not apply is skipped.
pub fn junit(name: &str, suites: &[Suite]) -> String {
    let mut report = Report::new(name);
    report.add_test_suites(suites.iter().map(test_suite));
    report.to_string().expect("a report can be written as XML")
}

fn test_suite(suite: &Suite) -> TestSuite {
    let mut written = TestSuite::new(suite.name.as_str());
    written.set_time(Duration::from_secs_f64(suite.seconds.max(0.0)));
    for case in &suite.cases {
        let mut test = TestCase::new(case.name.as_str(), status(case));
        test.set_classname(format!("loadtest.{}", suite.name));
        if case.outcome == CaseOutcome::Passed && !case.detail.is_empty() {
            test.set_system_out(case.detail.as_str());
        }
        written.add_test_case(test);
    }
    written
}

fn status(case: &Case) -> TestCaseStatus {
    let (mut status, kind) = match case.outcome {
        CaseOutcome::Passed => return TestCaseStatus::success(),
        CaseOutcome::Skipped => (TestCaseStatus::skipped(), "skipped"),
        CaseOutcome::Failed => (TestCaseStatus::non_success(NonSuccessKind::Failure), "violated"),
        CaseOutcome::Inconclusive => (TestCaseStatus::non_success(NonSuccessKind::Error), "inconclusive"),
    };
    if case.outcome != CaseOutcome::Skipped {
        status.set_type(kind).set_description(case.detail.as_str());
    }
    status.set_message(case.detail.lines().next().unwrap_or_default());
    status
}
