//! What the verdict rests on: the counterexample, and every check.

use maud::{Markup, html};

use super::figures::{ms, whole};
use super::verdict::{Tone, icon};
use crate::report::RunReport;
use crate::series::{Counterexample, Reader};
use crate::verdict::{Check, Status};

/// The columns of the table of two orders that read the same.
const COLUMNS: [&str; 8] =
    ["buyer", "replica", "sent ms", "confirmed ms", "read", "bought", "wrote", "token"];

/// The counterexample and the checks of a run.
pub fn sections(run: &RunReport, prefix: &str) -> Markup {
    let lost = run.lost_updates();
    html! {
        section.card id={ (prefix) "counterexample" } tabindex="-1" {
            h2 { "Counterexample" }
            @match run.series.as_ref().and_then(|series| series.counterexample.as_ref()) {
                Some(counterexample) => (words(counterexample, lost, "")),
                None => (otherwise(run)),
            }
        }
        (checks(&run.checks, "Checks", prefix))
    }
}

/// What can be seen while a run goes on: the first lost update, and what of the checks is known already.
/// `found` are the figures that are known, each with whether it is bad.
pub fn so_far(lost: u64, first: Option<&Counterexample>, found: &[(bool, &str, String)]) -> Markup {
    html! {
        section.card id="counterexample" tabindex="-1" {
            h2 { "Counterexample" }
            @match first {
                Some(first) => (words(first, lost, " so far")),
                None if lost > 0 => p.note {
                    (whole(lost)) " updates are lost; which two orders read the same is known at the end."
                },
                None => p.note {
                    "None so far: every order that was answered read what the one before it wrote."
                },
            }
        }
        section.card id="checks" {
            h2 { "Checks" }
            ul.checks {
                @for (is_bad, name, detail) in found {
                    @let (tone, word) = match is_bad {
                        true => (Tone::Violated, "FAIL"),
                        false => (Tone::Running, "so far"),
                    };
                    li {
                        (icon(tone))
                        span class={ "status " (tone.class()) } { (word) }
                        b { (name) }
                        span.detail { (detail) }
                    }
                }
                li {
                    (icon(Tone::Idle)) span.status { "not known" } b { "all other checks" }
                    span.detail { "They are made from the database, when the run is over." }
                }
            }
        }
    }
}

/// All checks with what they have shown.
pub fn checks(checks: &[Check], title: &str, prefix: &str) -> Markup {
    html! {
        section.card id={ (prefix) "checks" } {
            h2 { (title) }
            ul.checks {
                @for check in checks {
                    @let (tone, word) = status(check.status);
                    li {
                        (icon(tone))
                        span class={ "status " (tone.class()) } { (word) }
                        b { (check.name) }
                        span.detail { (check.detail) }
                    }
                }
            }
        }
    }
}

fn status(status: Status) -> (Tone, &'static str) {
    match status {
        Status::Pass => (Tone::Correct, "pass"),
        Status::Fail => (Tone::Violated, "FAIL"),
        Status::Unknown => (Tone::Inconclusive, "unknown"),
        Status::NotApplicable => (Tone::Idle, "not applicable"),
    }
}

fn words(counterexample: &Counterexample, lost: u64, so_far: &str) -> Markup {
    let Counterexample { read, version, readers: [a, b] } = counterexample;
    let wrote = if a.wrote == b.wrote {
        format!("both wrote {}", whole(a.wrote))
    } else {
        format!("wrote {} and {}", whole(a.wrote), whole(b.wrote))
    };
    let row = |reader: &Reader| {
        html! {
            tr {
                th scope="row" { (reader.buyer) }
                td data-label=(COLUMNS[1]) { (reader.replica) }
                td data-label=(COLUMNS[2]) { (ms(reader.sent_ms)) }
                td data-label=(COLUMNS[3]) { (ms(reader.confirmed_ms)) }
                td data-label=(COLUMNS[4]) { (whole(*read)) }
                td data-label=(COLUMNS[5]) { (reader.quantity) }
                td data-label=(COLUMNS[6]) { (whole(reader.wrote)) }
                td data-label=(COLUMNS[7]) { @if let Some(token) = reader.token { (token) } @else { "–" } }
            }
        }
    };
    html! {
        p.story {
            b { (a.buyer) } " and " b { (b.buyer) } " both read " (whole(*read)) " and " (wrote)
            ": the same units were sold twice, and of two sales the stock remembers one."
        }
        div.scroll tabindex="0" role="region" aria-label="The two orders" {
            table.cards {
                thead { tr {
                    @for column in COLUMNS {
                        th scope="col" { (column) }
                    }
                } }
                tbody { (row(a)) (row(b)) }
            }
        }
        p.note {
            "Version " (whole(*version)) " of the product. It is the first of " (whole(lost))
            " lost updates" (so_far) "."
        }
    }
}

fn otherwise(run: &RunReport) -> Markup {
    let failed: Vec<_> = run.checks.iter().filter(|check| check.status == Status::Fail).collect();
    html! {
        @if failed.is_empty() {
            p.note { "None was found: every order read what the one before it wrote." }
        } @else {
            ul { @for check in failed { li { b { (check.name) } ": " (check.detail) } } }
        }
    }
}
