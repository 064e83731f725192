//! What was found in a shop as a page: one file that needs nothing else, with the parts that the dashboard
//! shows too.

use maud::{Markup, html};

use super::buyer::Outcome;
use super::judge::Tried;
use super::load::Arrival;
use super::report::{ShopReport, ShopRun};
use crate::report::html::figures::{rate, whole};
use crate::report::html::verdict::{Banner, Tone, banner, icon};
use crate::report::html::{downloads, layout, proof};
use crate::verdict::Verdict;

/// How many confirmed purchases are drawn: those that were confirmed when the stock ran out.
const DRAWN: usize = 60;

/// The report as a page that can be opened from a file: it asks nothing of any network.
pub fn frozen(report: &ShopReport) -> String {
    let body = html! {
        (content(report))
        (downloads::embedded_json("stocklock-shop.json", report))
    };
    layout::frozen(&report.headline, &body).into_string()
}

/// Everything that a report says.
pub fn content(report: &ShopReport) -> Markup {
    html! {
        (verdict(report))
        (ladder(&report.runs, None))
        @if let Some(run) = telling(report) { (proofs(run)) }
    }
}

/// The verdict on all runs.
pub fn verdict(report: &ShopReport) -> Markup {
    let mut words = report.headline.split(" · ").map(str::to_owned);
    let word = words.next().unwrap_or_default();
    let meaning = match report.verdict {
        Verdict::Violated if report.runs.iter().any(|run| run.oversold > 0) => {
            "The shop's own record, or what it has confirmed to its buyers, adds up to more than there \
             ever was."
        }
        Verdict::Violated => "The shop's record does not agree with what it has told its buyers.",
        Verdict::Inconclusive => "Nothing was found wrong, and something could not be seen.",
        Verdict::Correct => "Every check that applies has passed, on what the shop's own record says.",
    };
    let meaning = match report.stopped {
        true => format!("Stopped before its end: the verdict is on what was done. {meaning}"),
        false => meaning.into(),
    };
    let meaning = match &report.broke_off {
        Some(why) => format!("{meaning} {why}."),
        None => meaning,
    };
    banner(&Banner { tone: report.verdict.into(), word, facts: words.collect(), meaning }, 1)
}

/// The run that tells most: the first that oversold, or else the first that is not correct, or else the last.
pub fn telling(report: &ShopReport) -> Option<&ShopRun> {
    let first = |is: fn(&ShopRun) -> bool| report.runs.iter().find(|run| is(run));
    let wrong = first(|run| run.oversold > 0).or_else(|| first(|run| run.verdict == Verdict::Violated));
    wrong.or_else(|| first(|run| run.verdict != Verdict::Correct)).or_else(|| report.runs.last())
}

/// The runs side by side: what was sold of what there was, at which number of buyers. `running` is the one
/// that goes on.
pub fn ladder(runs: &[ShopRun], running: Option<Arrival>) -> Markup {
    let most = runs.iter().map(|run| run.sold.unwrap_or(run.bought).max(run.stock)).max().unwrap_or(1).max(1);
    html! {
        section.card id="ladder" aria-labelledby="ladder-title" {
            h2 #ladder-title { "At how many buyers does it break?" }
            div.scroll tabindex="0" role="region" aria-label="The runs side by side" {
                table.ladder {
                    thead { tr {
                        @for column in ["buyers", "verdict", "sold", "", "confirmed", "refused", "unknown",
                            "purchases/s", "p50 ms", "p99 ms"] {
                            th scope="col" { (column) }
                        }
                    } }
                    tbody {
                        @for run in runs { (row(run, most)) }
                        @if let Some(arrival) = running {
                            tr { th scope="row" { (arrival) } td colspan="9" { "running" } }
                        }
                        @if runs.is_empty() && running.is_none() { tr { td colspan="10" { "No run is over \
                         yet." } } }
                    }
                }
            }
        }
    }
}

fn row(run: &ShopRun, most: i64) -> Markup {
    let ms = |value: Option<f64>| value.map_or_else(|| "–".into(), |value| whole(value.round() as i64));
    let tone = Tone::from(run.verdict);
    html! {
        tr {
            th scope="row" { (run.arrival) }
            td class={ "verdict " (tone.class()) } { (icon(tone)) (run.word()) }
            td data-figure="sold" {
                @match run.sold { Some(sold) => (whole(sold)), None => "?" } " of " (whole(run.stock))
            }
            td.bar { (bar(run.sold.unwrap_or(run.bought), run.stock, most)) }
            @for units in [run.bought, run.refused, run.unknown] { td { (whole(units)) } }
            td { (rate(run.per_second)) }
            td { (ms(run.p50_ms)) }
            td { (ms(run.p99_ms)) }
        }
    }
}

/// What was sold, as far as it was there, and beyond it.
fn bar(sold: i64, stock: i64, most: i64) -> Markup {
    let width = |units: i64| units * 200 / most;
    html! {
        svg.bar viewBox="0 0 200 12" preserveAspectRatio="none" aria-hidden="true" focusable="false" {
            rect.bar-there x="0" y="1" width=(width(sold.min(stock))) height="10" {}
            @if sold > stock {
                rect.bar-beyond x=(width(stock)) y="1" width=(width(sold - stock)) height="10" {}
            }
            line.bar-stock x1=(width(stock)) x2=(width(stock)) y1="0" y2="12" {}
        }
    }
}

/// What the verdict on a run rests on.
pub fn proofs(run: &ShopRun) -> Markup {
    html! {
        section.card id="counterexample" tabindex="-1" {
            h2 { "Counterexample" }
            @match &run.counterexample {
                Some(text) => { p.story { (run.arrival) ": " (text) } (timeline(run)) }
                None => p.note { "None was found: no purchase was confirmed beyond the stock." }
            }
        }
        (proof::checks(&run.checks, &format!("Checks, {}", run.arrival), ""))
        @if !run.unclear.is_empty() {
            section.card id="unclear" {
                h2 { "Unclear answers" }
                p.note { "Neither a confirmation nor a refusal for want of stock: the units may be sold or \
                 not." }
                ul { @for unclear in &run.unclear {
                    li { b { (unclear.purchases) " × " } (unclear.what) }
                } }
            }
        }
        @if !run.refusals.is_empty() {
            section.card id="refusals" {
                h2 { "Taken for refusals, " (run.arrival) }
                p.note { "For want of stock, if the rules are right." }
                ul { @for answers in &run.refusals { li { b { (answers.purchases) " × " } (answers.what) } } }
            }
        }
        (steps(run))
    }
}

/// The confirmed purchases along the time of the run, those beyond the stock in another colour.
fn timeline(run: &ShopRun) -> Markup {
    let mut confirmed: Vec<&Tried> =
        run.tried.iter().filter(|tried| tried.outcome == Outcome::Bought).collect();
    confirmed.sort_by(|a, b| a.ended_ms.total_cmp(&b.ended_ms));
    let fit = usize::try_from(run.stock / run.quantity.max(1)).unwrap_or_default();
    let from = (fit + DRAWN / 2).min(confirmed.len()).saturating_sub(DRAWN);
    let drawn: Vec<_> = confirmed.iter().enumerate().skip(from).take(DRAWN).collect();
    let begun = drawn.iter().map(|(_, tried)| tried.begun_ms).fold(f64::INFINITY, f64::min);
    let ended = drawn.iter().map(|(_, tried)| tried.ended_ms).fold(0.0, f64::max);
    let at = |ms: f64| format!("{:.1}", (ms - begun) / (ended - begun).max(0.001) * 1000.0);
    let wide =
        |from: f64, to: f64| format!("{:.1}", ((to - from) / (ended - begun).max(0.001) * 1000.0).max(2.0));
    html! {
        figure.buys {
            figcaption.note {
                "Confirmed purchases in the order of their confirmations, " (drawn.len()) " of "
                (confirmed.len()) ", over " (format!("{:.3}", (ended - begun) / 1e3)) " s. Thin: the whole \
                purchase; thick: its last step. The line marks where the stock was sold."
            }
            div role="img" aria-label="Purchases along the time of the run; the table below has their times" {
                @for (number, tried) in &drawn {
                    @let decided = tried.decided_ms.unwrap_or(tried.ended_ms);
                    div class=(if *number == fit { "buy first-too-many" } else { "buy" }) {
                        span.buy-name { (tried.number) }
                        svg viewBox="0 0 1000 10" preserveAspectRatio="none" focusable="false" {
                            rect.buy-whole x=(at(tried.begun_ms)) y="4" height="2"
                                width=(wide(tried.begun_ms, tried.ended_ms)) {}
                            rect class=(if *number < fit { "buy-there" } else { "buy-beyond" })
                                x=(at(decided)) y="1" height="8" width=(wide(decided, tried.ended_ms)) {}
                        }
                    }
                }
            }
            details id="purchases" {
                summary { "These purchases as a table" }
                div.scroll tabindex="0" role="region" aria-label="Confirmed purchases" {
                    table {
                        thead { tr {
                            @for column in ["purchase", "order", "begun ms", "last step ms", "confirmed \
                             ms", ""] {
                                th scope="col" { (column) }
                            }
                        } }
                        tbody { @for (number, tried) in &drawn { tr {
                            th scope="row" { (tried.number) }
                            td { (tried.order.as_deref().unwrap_or("–")) }
                            td { (format!("{:.1}", tried.begun_ms)) }
                            td { (tried.decided_ms.map_or_else(|| "–".into(), |ms| format!("{ms:.1}"))) }
                            td { (format!("{:.1}", tried.ended_ms)) }
                            td { @if *number >= fit { "beyond the stock" } }
                        } } }
                    }
                }
            }
        }
    }
}

fn steps(run: &ShopRun) -> Markup {
    let ms = |value: Option<f64>| value.map_or_else(|| "–".into(), |value| format!("{value:.1}"));
    html! {
        section.card id="steps" {
            h2 { "The steps of a purchase, " (run.arrival) }
            div.scroll tabindex="0" role="region" aria-label="The steps of a purchase" {
                table {
                    thead { tr {
                        th scope="col" { "step" } th scope="col" { "p50 ms" } th scope="col" { "p99 ms" }
                    } }
                    tbody { @for step in &run.steps { tr {
                        th scope="row" { (step.step) } td { (ms(step.p50_ms)) } td { (ms(step.p99_ms)) }
                    } } }
                }
            }
        }
    }
}
