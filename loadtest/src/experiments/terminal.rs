//! A report for a terminal.

use std::fmt::Write as _;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{ContentArrangement, Table};
use textwrap::{Options, fill};

use super::{ExperimentReport, Finding};
use crate::report::Screen;

/// The widest that is still read with ease.
const WIDEST: usize = 110;

/// What is written where nobody says how wide the terminal is.
const USUAL: usize = 80;

/// The narrowest in which anything has room.
const NARROWEST: usize = 40;

/// A report for a screen: its title, what is claimed, what happened, and what that means.
pub fn text(report: &ExperimentReport, screen: Screen) -> String {
    let width = screen.width.map_or(USUAL, usize::from).clamp(NARROWEST, WIDEST);
    let mut text = match report.title.as_str() {
        "" => report.name.clone(),
        title => format!("{title} ({})", report.name),
    };
    text = fill(&text, width);
    let underline = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    text += &format!("\n{}\n", "=".repeat(underline));
    let figures = report.figures.iter().map(|(name, figure)| format!("{name}: {figure}"));
    let finding = match report.finding {
        Finding::NotRun => "NOT RUN".to_owned(),
        finding => format!("the claim is {}", finding.to_string().to_uppercase()),
    };
    let before = [("The course says", vec![report.claim.clone()]), ("Set-up", vec![report.setup.clone()])];
    let after = [
        ("Figures", figures.collect()),
        ("Observed", vec![report.observed.clone()]),
        ("Why", report.explanation.iter().cloned().collect()),
        ("Finding", vec![finding]),
        (
            "What this means for you",
            Some(report.advice.clone()).filter(|advice| !advice.is_empty()).into_iter().collect(),
        ),
    ];
    for (title, lines) in before {
        section(&mut text, title, &lines, width, 2);
    }
    // The times stay in a column of their own.
    section(&mut text, "What happened", &report.timeline, width, "123456 ms  ".len() + 2);
    for (title, lines) in after {
        // What is a list hangs; a paragraph does not.
        section(&mut text, title, &lines, width, if title == "Figures" { 4 } else { 2 });
        if title == "Figures"
            && let Some((head, rows)) = report.table.split_first()
        {
            let mut table = Table::new();
            table.load_style(ASCII_MARKDOWN).set_header(head).add_rows(rows);
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width as u16);
            writeln!(text, "\n{table}").expect("a string");
        }
    }
    text.trim_end().to_owned()
}

/// Lines under a title; what does not fit goes on under `hang` blanks.
fn section(text: &mut String, title: &str, lines: &[String], width: usize, hang: usize) {
    if lines.is_empty() {
        return;
    }
    writeln!(text, "\n{title}").expect("a string");
    let hang = " ".repeat(hang);
    for line in lines {
        let options = Options::new(width).initial_indent("  ").subsequent_indent(&hang);
        writeln!(text, "{}", fill(line, options)).expect("a string");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::{Advice, all};

    #[test]
    fn a_report_fits_into_eighty_columns_and_says_what_it_means() {
        for experiment in all() {
            for finding in Finding::ALL {
                let report = ExperimentReport {
                    name: experiment.name.into(),
                    title: experiment.title.into(),
                    claim: experiment.claim.into(),
                    setup: experiment.setup.into(),
                    timeline: vec![format!("{:>6} ms  {}", 12_345, "replica-1 has the lock ".repeat(9))],
                    events: Vec::new(),
                    figures: vec![("a figure of some length".repeat(4), "1 ".repeat(60))],
                    observed: experiment.setup.into(),
                    explanation: None,
                    table: vec![vec!["a column".repeat(5); 4]; 2],
                    finding,
                    advice: experiment.advice.on(finding).into(),
                };
                let text = text(&report, Screen { width: Some(80), ..Screen::default() });
                let wide = text.lines().find(|line| line.chars().count() > 80);
                assert_eq!(wide, None, "{text}");
                let said = text.split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(said.contains(&format!("What this means for you {}", report.advice)), "{text}");
                assert!(said.contains(experiment.title) && said.contains("What happened 12345 ms"), "{text}");
            }
        }
        let advice: Advice = all()[0].advice;
        assert_ne!(advice.on(Finding::Reproduced), advice.on(Finding::NotRun));
    }
}
