//! A summary in Markdown, as GitHub shows it beside a job.

use super::cases::{CaseOutcome, Suite};

/// A summary: the verdict in a line, a table, what went wrong, and all cases folded away.
pub fn markdown(line: &str, table: &str, suites: &[Suite]) -> String {
    let mut text = format!("## {}\n\n{table}\n", escaped(line));
    let bad = suites.iter().flat_map(|suite| suite.cases.iter().map(move |case| (suite, case)));
    let bad: Vec<_> = bad
        .filter(|(_, case)| case.is_bad())
        .map(|(suite, case)| {
            format!("- **{}**, {}: {}\n", escaped(&suite.name), case.name, escaped(&case.detail))
        })
        .collect();
    if !bad.is_empty() {
        text += &format!("\n{}", bad.concat());
    }
    text +=
        "\n<details><summary>All checks</summary>\n\n| run | check | result | detail |\n|---|---|---|---|\n";
    for suite in suites {
        for case in &suite.cases {
            let result = match case.outcome {
                CaseOutcome::Passed => "passed",
                CaseOutcome::Failed => "**failed**",
                CaseOutcome::Inconclusive => "**inconclusive**",
                CaseOutcome::Skipped => "skipped",
            };
            let (name, detail) = (escaped(&suite.name), escaped(&case.detail));
            text += &format!("| {name} | {} | {result} | {detail} |\n", case.name);
        }
    }
    text + "\n</details>\n"
}

/// A text that means nothing in Markdown, on one line.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '\n' => escaped.push(' '),
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '|' | '*' | '_' | '`' | '\\' | '[' => escaped.extend(['\\', c]),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Case;

    #[test]
    fn what_went_wrong_stands_above_the_fold_and_no_text_is_taken_for_markup() {
        let case = Case::new("not-oversold", CaseOutcome::Failed, "sold | <b>two</b>\n*more*");
        let passed = Case::new("balanced", CaseOutcome::Passed, "");
        let suites = [Suite::new("my_shop", 1.0, vec![case, passed])];
        let text = markdown("OVERSOLD by 2", "| table |", &suites);
        let bad = r"- **my\_shop**, not-oversold: sold \| &lt;b>two&lt;/b> \*more\*";
        let (above, below) = text.split_once("<details>").unwrap();
        assert!(above.starts_with("## OVERSOLD by 2\n\n| table |\n") && above.contains(bad), "{text}");
        assert!(below.contains("| my\\_shop | balanced | passed |  |"), "{text}");
    }
}
