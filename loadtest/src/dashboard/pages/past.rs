//! Past runs: the list, which is filtered, named, deleted from and compared.

use maud::{Markup, html};

use super::comparison;
use crate::dashboard::archive::{Archive, Entry, Kept};
use crate::dashboard::compared::{MOST, suites, title};
use crate::report::RunReport;
use crate::report::html::figures::whole;
use crate::report::html::verdict::chip;
use crate::report::html::{content, downloads, layout};

/// All values of a name in a query.
fn all(query: &str, wanted: &[&str]) -> Vec<String> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    let named = pairs.filter(|(name, _)| wanted.contains(&name.as_ref()));
    named.map(|(_, value)| value.trim().to_owned()).filter(|value| !value.is_empty()).collect()
}

/// The ids that a query chooses, the oldest first.
pub(in crate::dashboard) fn chosen(query: &str) -> Vec<String> {
    // Two were called a and b, once.
    let mut ids = all(query, &["run", "a", "b"]);
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Whether all words are somewhere in what is known of a suite.
fn matches(words: &str, archive: &Archive, id: &str, entry: &Entry) -> bool {
    let runs = entry.runs.iter().map(|run| format!("{} {} {}", run.strategy, verdict(run), run.store));
    let faults = entry.runs.iter().flat_map(|run| run.faults.iter().map(|fault| fault.what.clone()));
    let known: Vec<_> =
        [title(archive, id, entry), when(entry)].into_iter().chain(runs).chain(faults).collect();
    let known = known.join(" ").to_lowercase();
    words.to_lowercase().split_whitespace().all(|word| known.contains(word))
}

fn verdict(run: &RunReport) -> String {
    if run.oversold() > 0 { format!("{} oversold", run.verdict) } else { run.verdict.to_string() }
}

fn when(entry: &Entry) -> String {
    entry.at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The list, and a comparison where the query chooses any.
pub(in crate::dashboard) fn page(archive: &Archive, query: &str) -> Markup {
    let words = all(query, &["q"]).pop().unwrap_or_default();
    let only = all(query, &["only"]).pop();
    let asked = chosen(query);
    let compared = suites(archive, &asked);
    let shown: Vec<_> = archive.all().filter(|(id, entry)| matches(&words, archive, id, entry)).collect();
    // At first, the last two.
    let ticked: Vec<_> = match compared.is_empty() {
        true => shown.iter().take(2).map(|(id, _)| (*id).clone()).collect(),
        false => asked.clone(),
    };
    let heading = if compared.is_empty() { 1 } else { 2 };
    let body = html! {
        @if !compared.is_empty() { (comparison::section(archive, &compared, only.as_deref())) }
        p.headline-of-list role="heading" aria-level=(heading) { "Past runs" }
        @if archive.all().next().is_none() {
            p.note { "There are none yet. " a href="/start" { "Start one" } "." }
        } @else {
            section.card aria-label="The list" {
                (filter(&words))
                @if shown.is_empty() { p.note { "None of them has all these words." } } @else {
                    form.listed method="get" action="/runs" {
                        input type="hidden" name="q" value=(words);
                        table.cards.runs {
                            thead { tr {
                                th scope="col" { "" }
                                @for column in ["run", "verdicts", "load", "again"] {
                                    th.left scope="col" { (column) }
                                }
                            } }
                            tbody {
                                @for (id, entry) in &shown { (row(archive, id, entry, ticked.contains(id))) }
                            }
                        }
                        div.buttons {
                            button.primary type="submit" { "Compare the ticked ones" }
                            button type="submit" formaction="/runs/delete" { "Delete the ticked ones …" }
                            span.note { "up to " (MOST) " are compared, with the oldest of them" }
                        }
                    }
                }
            }
        }
    };
    layout::served("Past runs", "/runs", &body)
}

/// A form of its own: whoever filters has not chosen anything yet.
fn filter(words: &str) -> Markup {
    html! {
        form.buttons method="get" action="/runs" {
            div.field {
                label for="filter" { "Filter" }
                input #filter name="q" value=(words) autocomplete="off" aria-describedby="filter-hint";
                span.hint #filter-hint { "words such as redis, violated, a name or a date" }
            }
            button type="submit" { "Filter" }
        }
    }
}

fn row(archive: &Archive, id: &str, entry: &Entry, is_ticked: bool) -> Markup {
    let (title, when) = (title(archive, id, entry), when(entry));
    html! {
        tr {
            td { label.tick { input type="checkbox" name="run" value=(id) checked[is_ticked]
                aria-label={ "Choose " (title) " of " (when) }; } }
            th.left scope="row" { a href={ "/runs/" (id) } { (title) } br; span.note { (when) } }
            td.left { ul.chips { @for (number, run) in entry.runs.iter().enumerate() {
                li { (chip(run, &format!("/runs/{id}{}", anchor(entry, number)), false)) }
            } } }
            td.left { @if let Some(run) = entry.runs.first() { (load(run)) } }
            @let label = format!("The same choices as {title} of {when}");
            td.left { a href={ "/run?" (entry.form) } aria-label=(label) { "same choices" } }
        }
    }
}

fn anchor(entry: &Entry, number: usize) -> String {
    if entry.runs.len() > 1 { format!("#run-{number}") } else { String::new() }
}

fn load(run: &RunReport) -> String {
    let faults = match run.faults.len() {
        0 => String::new(),
        1 => ", 1 fault".into(),
        several => format!(", {several} faults"),
    };
    let (orders, stock) = (whole(run.attempts), whole(run.stock));
    format!("{orders} orders for {stock}, {} buyers, {} × {}{faults}", run.buyers, run.replicas, run.store)
}

/// One past suite.
pub(in crate::dashboard) fn one(archive: &Archive, id: &str, kept: &Kept) -> Markup {
    let title = archive.entry(id).map_or_else(String::new, |entry| self::title(archive, id, entry));
    let body = html! {
        p.note { b { (title) } ", " (kept.at.strftime("%Y-%m-%d %H:%M:%S UTC")) ". "
            a href={ "/run?" (kept.form) } { "The same choices again" } }
        (content(&kept.report))
        (naming(archive, id))
        (files(id))
        (downloads::environment(&kept.report))
    };
    layout::served(&crate::report::html::title(&kept.report), "/runs", &body)
}

/// The name of a suite, and its end.
fn naming(archive: &Archive, id: &str) -> Markup {
    html! {
        section.card id="naming" {
            h2 { "This run in the list" }
            form.buttons method="post" action={ "/runs/" (id) "/name" } {
                div.field {
                    label for="run-name" { "Name" }
                    input #run-name name="name" value=(archive.name(id)) maxlength="80" autocomplete="off";
                }
                button type="submit" { "Name it" }
                a.button-link href={ "/runs/delete?run=" (id) } { "Delete it …" }
            }
        }
    }
}

/// Asks whether these are to be deleted.
pub(in crate::dashboard) fn deletion(archive: &Archive, query: &str) -> Markup {
    let ids = chosen(query);
    let known: Vec<_> = ids.iter().filter_map(|id| Some((id, archive.entry(id)?))).collect();
    let body = html! {
        @if known.is_empty() {
            h1 { "Nothing is ticked" }
            p { a href="/runs" { "Back to the list" } }
        } @else {
            h1 { "Delete " (known.len()) @if known.len() == 1 { " run" } @else { " runs" } " for good?" }
            form.card method="post" action="/runs/delete" {
                ul { @for (id, entry) in &known {
                    li {
                        (title(archive, id, entry)) ", " (when(entry))
                        input type="hidden" name="run" value=(id);
                    }
                } }
                div.buttons {
                    button.primary type="submit" { "Delete" }
                    a.button-link href="/runs" { "Keep" }
                }
            }
        }
    };
    layout::served("Delete", "/runs", &body)
}

/// A suite as files.
pub(in crate::dashboard) fn files(id: &str) -> Markup {
    html! {
        section.card id="downloads" {
            h2 { "Downloads" }
            p.downloads {
                @for (kind, name) in [("json", "JSON"), ("csv", "CSV"), ("html", "HTML report")] {
                    a href={ "/runs/" (id) "." (kind) } download { (name) } " "
                }
            }
        }
    }
}
