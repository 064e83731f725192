//! The reports as a page that stands on its own.

use super::{ExperimentReport, Finding};

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>StockLock: the claims \
    of the course</title>\n <style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem \
    auto;padding:0 1rem} section{border-top:1px solid \
    #ccc}pre{background:#f5f5f5;padding:.5rem;overflow-x:auto} td,th{border:1px solid #ccc;padding:.2rem \
    .5rem;text-align:left}table{border-collapse:collapse;margin:1rem 0} \
    .reproduced{color:#06662a}.refuted{color:#a33}.inconclusive,.not-run{color:#865c00}</style>\n <h1>The \
    claims of the course, tried</h1>\n";

/// A page with all reports. It loads nothing from elsewhere, and shows every text as it is.
pub fn page(reports: &[ExperimentReport]) -> String {
    let mut page = HEAD.to_owned();
    for report in reports {
        page += &section(report);
    }
    page
}

fn section(report: &ExperimentReport) -> String {
    let finding = match report.finding {
        Finding::Reproduced => "reproduced",
        Finding::Refuted => "refuted",
        Finding::Inconclusive => "inconclusive",
        Finding::NotRun => "not-run",
    };
    let mut section = format!(
        "<section id=\"{name}\">\n<h2>{name}: <span class=\"{finding}\">{}</span></h2>\n",
        finding.replace('-', " "),
        name = escape(&report.name),
    );
    let texts = [
        ("The course says", Some(&report.claim)),
        ("Set-up", Some(&report.setup)),
        ("Observed", Some(&report.observed)),
        ("Why", report.explanation.as_ref()),
    ];
    for (title, text) in texts {
        if let Some(text) = text {
            section += &format!("<p><b>{title}:</b> {}</p>\n", escape(text));
        }
    }
    section += &table(report.figures.iter().map(|(name, figure)| [name, figure]));
    section += &table(&report.table);
    if !report.timeline.is_empty() {
        section += &format!("<pre>{}</pre>\n", escape(&report.timeline.join("\n")));
    }
    section + "</section>\n"
}

fn table<'a, Row: IntoIterator<Item = &'a String>>(rows: impl IntoIterator<Item = Row>) -> String {
    let cell = |text: &String| format!("<td>{}</td>", escape(text));
    let row = |row: Row| format!("<tr>{}</tr>\n", row.into_iter().map(cell).collect::<String>());
    let rows: String = rows.into_iter().map(row).collect();
    if rows.is_empty() { rows } else { format!("<table>\n{rows}</table>\n") }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_and_not_obeyed() {
        let report = ExperimentReport {
            name: "herd".into(),
            claim: "<script>alert(1)</script> & more".into(),
            setup: String::new(),
            timeline: vec!["1 ms  <b>".into()],
            figures: vec![("a".into(), "\"1\"".into())],
            observed: String::new(),
            explanation: None,
            table: Vec::new(),
            finding: Finding::NotRun,
        };
        let page = page(&[report]);
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; more"), "{page}");
        assert!(page.contains("<td>&quot;1&quot;</td>") && page.contains("not run"), "{page}");
        assert!(!page.contains("<script") && page.matches("<table>").count() == 1, "{page}");
    }
}
