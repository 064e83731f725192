//! The bar that stays in sight: the verdict in short, and links to the parts of the page.

use maud::{Markup, html};

use super::verdict::{Banner, short};
use crate::report::RunReport;

/// A link to a part of the page: its anchor and its name.
pub type Jump = (String, String);

/// The bar of a page that is frozen.
pub fn of(banner: &Banner, jumps: &[Jump]) -> Markup {
    html! { div.bar { (links(jumps)) (short(banner)) } }
}

/// Links to parts of the page.
pub fn links(jumps: &[Jump]) -> Markup {
    html! {
        @if !jumps.is_empty() {
            nav.jumps aria-label="On this page" {
                @for (anchor, name) in jumps { a href={ "#" (anchor) } { (name) } }
            }
        }
    }
}

/// The parts of a page on one run.
pub fn of_run(run: &RunReport, is_one_of_several: bool) -> Vec<Jump> {
    let mut jumps = Vec::new();
    if run.series.is_some() {
        jumps.extend([("stock", "Stock"), ("latency", "Latency"), ("locks", "Lock")]);
    }
    if !run.faults.is_empty() && run.series.is_some() {
        jumps.push(("faults", "Faults"));
    }
    if is_one_of_several {
        jumps.push(("comparison", "Strategies"));
    }
    jumps.extend([("counterexample", "Counterexample"), ("checks", "Checks")]);
    jumps.into_iter().map(|(anchor, name)| (anchor.into(), name.into())).collect()
}

/// The parts of a page on several runs.
pub fn of_all(runs: &[RunReport]) -> Vec<Jump> {
    let all = ("comparison".to_owned(), "All".to_owned());
    let each =
        runs.iter().enumerate().map(|(number, run)| (format!("run-{number}"), run.strategy.to_string()));
    std::iter::once(all).chain(each).collect()
}
