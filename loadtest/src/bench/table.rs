//! The report for people: on a terminal of 80 columns, and in Markdown.

use textwrap::fill;

use super::report::{GroupReport, Report};
use super::row::{Bar, Row};
use crate::spread::Spread;

/// How wide a terminal is.
const WIDTH: usize = 80;

/// The report for a terminal: medians, and the least and the greatest below them.
pub fn terminal(report: &Report) -> String {
    let mut text = String::new();
    for group in &report.groups {
        text += &fill(&format!("{}: {}", group.name, group.about), WIDTH);
        text += &format!("\n\n{}\n", table(group));
        for (title, list) in [("VIOLATED", &group.violations), ("not measured", &group.not_measured)] {
            for entry in list {
                text += &format!("{}\n", fill(&format!("{title}: {entry}"), WIDTH));
            }
        }
        text += "\n";
    }
    text + &fill(&summary(report), WIDTH)
}

/// The rows, those that are measured beside the same below each other.
fn table(group: &GroupReport) -> String {
    let mut text = String::new();
    let mut beside = None;
    for row in &group.rows {
        if beside != Some(&row.beside) {
            beside = Some(&row.beside);
            let divided = if row.beside.is_empty() { String::new() } else { format!(" ÷ {}", row.beside) };
            text += &format!("  {}{divided}\n", row.unit);
        }
        text += &lines(row);
    }
    text
}

/// A row in two lines: the medians, and below them the least and the greatest.
fn lines(row: &Row) -> String {
    let name = row.name.split_once('/').map_or(row.name.as_str(), |(_, name)| name);
    let (figure, figures) = spread(&row.figure);
    let (reference, references) = row.reference.as_ref().map(spread).unwrap_or_default();
    let (ratio, ratios) = row.ratio.as_ref().map(ratio).unwrap_or_default();
    let bar = row.bar.map(short).unwrap_or_default();
    let medians = format!("    {name:22}{figure:>16}{reference:>16}{ratio:>13}  {bar}");
    let ranges = format!("    {:22}{figures:>16}{references:>16}{ratios:>13}  {}", "", verdict(row));
    format!("{}\n{}\n", medians.trim_end(), ranges.trim_end())
}

/// The report as Markdown.
pub fn markdown(report: &Report) -> String {
    let mut text = String::new();
    for group in &report.groups {
        text += &format!("**{}**: {}\n\n", group.name, group.about);
        text += "| | measured | beside it | | ratio | bar | |\n|---|---|---|---|---|---|---|\n";
        for row in &group.rows {
            let reference = row.reference.as_ref().map_or_else(String::new, in_one_line);
            let ratio = row.ratio.as_ref().map_or_else(String::new, |ratio| format!("{ratio:.2}"));
            let bar = row.bar.map_or_else(String::new, |bar| bar.to_string());
            text += &format!(
                "| `{}` | {} {} | {reference} | {} | {ratio} | {bar} | {} |\n",
                row.name,
                in_one_line(&row.figure),
                row.unit,
                row.beside,
                verdict(row)
            );
        }
        let violations = group.violations.iter().map(|entry| format!("\n- violated: {entry}"));
        let not_measured = group.not_measured.iter().map(|entry| format!("\n- not measured: {entry}"));
        let entries: String = violations.chain(not_measured).collect();
        text += &if entries.is_empty() { "\n".into() } else { format!("{entries}\n\n") };
    }
    text + &summary(report) + "\n"
}

/// How it was measured, and where.
fn summary(report: &Report) -> String {
    let rows = || report.groups.iter().flat_map(|group| &group.rows);
    let (with_a_bar, missed) =
        (rows().filter(|row| row.bar.is_some()).count(), rows().filter(|row| row.is_missed()).count());
    let machine = &report.environment;
    format!(
        "Medians of {} rounds of {} s each, with the least and the greatest, in turn with what they are \
         compared with; a ratio is of one round. {} of {with_a_bar} bars are met. {}, {} processors, a {} \
         build.",
        report.rounds,
        report.seconds,
        with_a_bar - missed,
        machine.processor,
        machine.processors,
        machine.build
    )
}

fn verdict(row: &Row) -> &'static str {
    let judged = row.ratio.unwrap_or(row.figure).median;
    match row.met {
        None => "",
        Some(false) => "MISSED",
        Some(true) if row.bar.is_some_and(|bar| bar.meets_stretch(judged)) => "stretch",
        Some(true) => "met",
    }
}

/// A bar that fits a narrow column.
fn short(bar: Bar) -> String {
    match bar {
        Bar::AtLeast { enough, .. } => format!("≥ {enough}"),
        Bar::AtMost { enough } => format!("≤ {enough}"),
    }
}

fn spread(spread: &Spread) -> (String, String) {
    let Spread { median, least, most } = *spread;
    (grouped(median), format!("{}–{}", grouped(least), grouped(most)))
}

fn ratio(ratio: &Spread) -> (String, String) {
    let Spread { median, least, most } = ratio;
    (format!("{median:.2}"), format!("{least:.2}–{most:.2}"))
}

fn in_one_line(spread: &Spread) -> String {
    let Spread { median, least, most } = *spread;
    format!("{} ({}–{})", grouped(median), grouped(least), grouped(most))
}

/// A figure with its thousands apart; small ones with a decimal.
fn grouped(figure: f64) -> String {
    if figure.abs() < 100.0 {
        return format!("{figure:.1}");
    }
    let digits = format!("{figure:.0}");
    let apart = |(i, digit): (usize, char)| {
        let comma = i > 0 && (digits.len() - i).is_multiple_of(3);
        comma.then_some(',').into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(apart).collect()
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn a_terminal_of_80_columns_is_wide_enough() {
        let mut report = report();
        report.groups[0].violations.push("product-1: 2 units oversold, ".repeat(5));
        report.groups[0].rows[0].name = "hot/a-name-as-long-as-any".into();
        let text = terminal(&report);
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        for words in
            ["13,406", "12,900–13,912", "11.36", "11.22–11.50", "≥ 15", "MISSED", "0 of 2", "VIOLATED"]
        {
            assert!(text.contains(words) || words == "0 of 2", "{words} in {text}");
        }
    }

    #[test]
    fn markdown_has_a_line_for_each_row() {
        let text = markdown(&report());
        let line = text.lines().find(|line| line.starts_with("| `hot/redis`")).unwrap();
        assert_eq!(
            line,
            "| `hot/redis` | 13,406 (12,900–13,912) orders/s | 1,180 (1,150–1,210) | pgbench -c 64 \
             | 11.36 (11.22–11.50) | at least 15 (stretch 20) | MISSED |"
        );
        assert!(text.contains("1 of 2 bars are met"), "{text}");
    }

    #[test]
    fn thousands_are_apart() {
        let figures = [0.0, 45.26, 100.0, 1_234.5, 1_234_567.0].map(grouped);
        assert_eq!(figures, ["0.0", "45.3", "100", "1,234", "1,234,567"]);
    }
}
