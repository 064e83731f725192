//! What commands find, in all the forms in which it can be shown.

use comfy_table::Cell;
use loadtest::experiments::{self, ExperimentReport, Finding};
use loadtest::report::{
    Case, CaseOutcome, Conclusion, Report, Screen, Suite, Thresholds, comparison, details, html, table,
};
use loadtest::shop::{self, ShopReport};
use serde::Serialize;

/// What a command has found.
pub(super) trait Found: Serialize {
    /// For people, on a terminal.
    fn text(&self, screen: Screen) -> String;
    /// For people, as a page that needs nothing else.
    fn page(&self) -> String;
    /// The verdict, in a line.
    fn line(&self, thresholds: &Thresholds) -> String;
    /// The table alone, in Markdown.
    fn table(&self) -> String;
    /// As test cases.
    fn suites(&self, thresholds: &Thresholds) -> Vec<Suite>;
    /// The limits that were missed, a sentence for each.
    fn missed(&self, thresholds: &Thresholds) -> Vec<String>;
    /// What it says as a whole.
    fn conclude(&self, thresholds: &Thresholds) -> Conclusion;
}

impl Found for Report {
    fn text(&self, screen: Screen) -> String {
        match &self.runs[..] {
            // Of a comparison, the command is known.
            [run] if self.command.is_none() => details(run, screen),
            _ => comparison(self, screen),
        }
    }

    fn page(&self) -> String {
        html::page(self)
    }

    fn line(&self, thresholds: &Thresholds) -> String {
        self.line(thresholds)
    }

    fn table(&self) -> String {
        table(self, Screen::default())
    }

    fn suites(&self, thresholds: &Thresholds) -> Vec<Suite> {
        self.suites(thresholds)
    }

    fn missed(&self, thresholds: &Thresholds) -> Vec<String> {
        self.missed(thresholds)
    }

    fn conclude(&self, thresholds: &Thresholds) -> Conclusion {
        self.conclude(thresholds)
    }
}

impl Found for ShopReport {
    fn text(&self, screen: Screen) -> String {
        self.text(screen)
    }

    fn page(&self) -> String {
        shop::page::frozen(self)
    }

    fn line(&self, thresholds: &Thresholds) -> String {
        let missed = self.missed(thresholds).into_iter().map(|missed| format!(" · {missed}"));
        std::iter::once(self.headline.clone()).chain(missed).collect()
    }

    fn table(&self) -> String {
        self.table(Screen::default())
    }

    fn suites(&self, thresholds: &Thresholds) -> Vec<Suite> {
        self.suites(thresholds)
    }

    fn missed(&self, thresholds: &Thresholds) -> Vec<String> {
        self.missed(thresholds)
    }

    fn conclude(&self, thresholds: &Thresholds) -> Conclusion {
        self.conclude(thresholds)
    }
}

impl Found for Vec<ExperimentReport> {
    fn text(&self, screen: Screen) -> String {
        self.iter().map(|report| experiments::text(report, screen)).collect::<Vec<_>>().join("\n\n\n")
    }

    fn page(&self) -> String {
        experiments::page(self)
    }

    fn line(&self, _: &Thresholds) -> String {
        let of = |finding, word: &str| {
            let count = self.iter().filter(|report| report.finding == finding).count();
            (count > 0).then(|| format!("{count} {word}"))
        };
        let parts = [
            of(Finding::Reproduced, "reproduced"),
            of(Finding::Refuted, "refuted"),
            of(Finding::Inconclusive, "INCONCLUSIVE"),
            of(Finding::NotRun, "not run"),
        ];
        format!("{} experiments: {}", self.len(), parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }

    fn table(&self) -> String {
        let row = |report: &ExperimentReport| {
            vec![Cell::new(&report.name), Cell::new(in_words(report.finding)), Cell::new(&report.observed)]
        };
        let rows: Vec<_> = self.iter().map(row).collect();
        Screen::default().markdown(&["experiment", "the claim is", "observed"], &rows)
    }

    fn suites(&self, _: &Thresholds) -> Vec<Suite> {
        let case = |report: &ExperimentReport| {
            let outcome = match report.finding {
                // A refutation is a finding, not a failure.
                Finding::Reproduced | Finding::Refuted => CaseOutcome::Passed,
                Finding::Inconclusive => CaseOutcome::Inconclusive,
                Finding::NotRun => CaseOutcome::Skipped,
            };
            Case::new(&report.name, outcome, format!("{}: {}", in_words(report.finding), report.observed))
        };
        vec![Suite::new("experiments", 0.0, self.iter().map(case).collect())]
    }

    fn missed(&self, _: &Thresholds) -> Vec<String> {
        Vec::new()
    }

    fn conclude(&self, _: &Thresholds) -> Conclusion {
        experiments::conclude(self)
    }
}

fn in_words(finding: Finding) -> &'static str {
    match finding {
        Finding::Reproduced => "reproduced",
        Finding::Refuted => "refuted",
        Finding::Inconclusive => "inconclusive",
        Finding::NotRun => "not run",
    }
}
