//! The form: what a person can choose.

use std::collections::BTreeMap;

use lab::ServerKind;
use maud::{Markup, html};
use order_service::config::StrategyName;

use super::fault_menu;
use super::field::{self, Typed, typed};
use crate::dashboard::form::{Form, Mistakes};
use crate::dashboard::state::Inner;
use crate::fleet::server_of;

/// What everybody sees.
const FIRST: [Typed; 6] = [
    typed("stock", "Stock", "units", "there at the beginning", "numeric"),
    typed("buyers", "Buyers", "at once", "each waits for its answer", "numeric"),
    typed("replicas", "Replicas", "of the shop", "which share the stock", "numeric"),
    typed("orders", "Orders", "orders", "empty: 4000, or until all faults are over", "numeric"),
    typed("duration", "Duration", "", "such as 10s, instead of orders", "text"),
    typed("repeat", "Repeat", "times", "how far figures vary by themselves", "numeric"),
];

/// More of the load.
const LOAD: [Typed; 12] = [
    typed("rate", "Arrival", "orders/s", "empty: as fast as answered", "decimal"),
    typed("quantity", "Quantity", "units", "per order: 1, or 1..3", "text"),
    typed("cancels", "Cancels", "%", "of confirmed orders are given back", "decimal"),
    typed("restocks", "Restocks", "%", "of attempts: as many units are put in stock", "decimal"),
    typed("reads", "Reads", "%", "of attempts: the buyer reads the stock", "decimal"),
    typed("replays", "Replays", "%", "of confirmed orders are sent again, same key", "decimal"),
    typed("twins", "Twins", "%", "of orders are sent twice at once, same key", "decimal"),
    typed("payers", "Payers", "%", "pay, where a payment window is set", "decimal"),
    typed("pay-within", "Pay within", "", "such as 2s, after the order", "text"),
    typed("top-up", "Top up", "", "for so long, or always; 0s: not; empty: as faults need it", "text"),
    typed("timeout", "Timeout", "", "such as 10s; then the outcome is unknown", "text"),
    typed("seed", "Seed", "", "of the quantities, and of drawn faults", "numeric"),
];

/// The laboratory, but for what is chosen from a list.
const LABORATORY: [Typed; 2] = [
    typed("batch", "Batch", "orders", "per transaction; 1: as taught", "numeric"),
    typed("redis-servers", "Redis servers", "servers", "odd; several: Redlock", "numeric"),
];

/// What is chosen from a list: name, label, values with words.
type Choice = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const CHOSEN: [Choice; 3] = [
    ("store", "Store", &[("sqlite", "SQLite, a file"), ("postgres", "PostgreSQL")]),
    ("guard", "Guard", &[("", "as usual"), ("version", "version"), ("off", "off")]),
    ("control", "Control without a lock", &[("", "yes"), ("off", "no")]),
];

/// The fields with what is in them, and what is wrong with it.
pub(in crate::dashboard) fn fields(form: &Form, mistakes: Option<&Mistakes>) -> Markup {
    let mistake = |name: &str| mistakes.and_then(|mistakes| mistakes.get(name));
    let first = |name: &str| first_mistake(mistakes) == Some(name);
    let input =
        |typed: &Typed| field::input(typed, form.value(typed.name), mistake(typed.name), first(typed.name));
    let load: Vec<_> = LOAD.iter().map(|typed| typed.name).collect();
    let laboratory: Vec<_> = laboratory().collect();
    html! {
        (strategies(form, mistake("strategy")))
        div.fields { @for typed in &FIRST { (input(typed)) } }
        (folded("load-more", "More of the load", form, mistakes, &load, &html! {
            div.fields { @for typed in &LOAD { (input(typed)) } }
        }))
        (folded("faults-more", "Break something meanwhile", form, mistakes, &["faults"], &html! {
            (fault_menu::menu())
            (field::wide("faults", "Faults", form.value("faults"), mistake("faults"), first("faults"),
                "the same as text, separated by commas, such as kill@1s,pause:2xlease@2s; or random"))
        }))
        (folded("laboratory-more", "The laboratory", form, mistakes, &laboratory, &html! {
            div.fields {
                @for (name, label, options) in CHOSEN {
                    (field::chosen(name, label, form.value(name), mistake(name), first(name), options))
                }
                @for typed in &LABORATORY { (input(typed)) }
                (field::lines("set", "Settings of the service", form.value("set"), mistake("set"),
                    first("set"), "one KEY=VALUE a line, such as checkout.think_time=20ms"))
            }
        }))
    }
}

fn laboratory() -> impl Iterator<Item = &'static str> {
    let chosen = CHOSEN.iter().map(|(name, ..)| *name);
    chosen.chain(LABORATORY.iter().map(|typed| typed.name)).chain(["set"])
}

/// The first of the fields with something wrong, in the order in which they stand: it gets the focus.
fn first_mistake(mistakes: Option<&Mistakes>) -> Option<&'static str> {
    let typed = |fields: &'static [Typed]| fields.iter().map(|typed| typed.name);
    let all = typed(&FIRST).chain(typed(&LOAD)).chain(["faults"]).chain(laboratory());
    ["strategy"]
        .into_iter()
        .chain(all)
        .find(|name| mistakes.is_some_and(|mistakes| mistakes.contains_key(name)))
}

fn strategies(form: &Form, mistake: Option<&String>) -> Markup {
    let mut missing: BTreeMap<&str, ServerKind> = BTreeMap::new();
    for server in StrategyName::ALL.into_iter().filter_map(server_of).filter(|kind| !kind.is_installed()) {
        missing.insert(server.title(), server);
    }
    html! {
        fieldset #strategy-choice aria-describedby="strategy-hint" {
            legend { "How is the stock locked?" }
            div.strategies {
                @for (number, strategy) in StrategyName::ALL.into_iter().enumerate() {
                    @let is_missing = server_of(strategy).is_some_and(|server| !server.is_installed());
                    label.choice {
                        input type="checkbox" name="strategy" value=(strategy.as_str())
                            checked[form.strategies.contains(&strategy) && !is_missing] disabled[is_missing]
                            autofocus[number == 0 && mistake.is_some()];
                        span { b { (strategy.as_str()) } " " span.hint { (strategy.summary()) } }
                    }
                }
            }
            p.message #strategy-hint role="alert" hidden[mistake.is_none()] {
                @if let Some(mistake) = mistake { (mistake) }
            }
            @for server in missing.values() {
                p.note.install { (server.title()) " is not installed. " code { (server.install()) } }
            }
        }
    }
}

/// What a field is called.
fn label(name: &str) -> &str {
    let typed = LOAD.iter().chain(&LABORATORY).map(|typed| (typed.name, typed.label));
    let mut all = typed.chain(CHOSEN.iter().map(|(name, label, _)| (*name, *label)));
    all.find(|(known, _)| *known == name)
        .map_or(if name == "set" { "settings" } else { name }, |(_, label)| label)
}

/// Fields that few need, folded away until something in them is chosen or wrong.
fn folded(
    id: &str,
    title: &str,
    form: &Form,
    mistakes: Option<&Mistakes>,
    names: &[&str],
    body: &Markup,
) -> Markup {
    let is_wrong = names.iter().any(|name| mistakes.is_some_and(|mistakes| mistakes.contains_key(name)));
    let changed: Vec<_> = names.iter().filter(|name| !form.is_usual(name)).map(|name| label(name)).collect();
    html! {
        details.more id=(id) open[is_wrong || !changed.is_empty()] {
            summary {
                (title)
                @if !changed.is_empty() { ": " (changed.join(", ").to_lowercase()) }
            }
            div.folded { (body) }
        }
    }
}

/// The buttons, as far as they can be pressed now.
pub(in crate::dashboard) fn buttons(inner: &Inner) -> Markup {
    let busy = inner.is_busy();
    html! {
        div.buttons {
            button.primary #start type="submit" form="controls" disabled[busy] { "Run" }
            button #start-all type="submit" form="controls" name="all" value="1" disabled[busy] { "Run all" }
            button #stop type="submit" form="controls" formaction="/stop" formnovalidate
                disabled[!busy] {
                @if inner.is_stopping() { "Stop at once" } @else { "Stop" }
            }
            @if let Some(experiment) = inner.trials.running {
                span.note { "The experiment " (experiment) " goes on: one thing at a time." }
            }
        }
    }
}

/// The same for a terminal, as far as the form can be carried out.
pub(in crate::dashboard) fn command_line(form: &Form) -> Markup {
    let command = form.plan().ok().map(|plan| plan.command_line());
    html! {
        div {
            p.note #command-label { "The same on a terminal" }
            pre.command #command tabindex="0" role="region" aria-labelledby="command-label"
                hidden[command.is_none()] { @if let Some(command) = &command { (command) } }
            p.note #no-command hidden[command.is_some()] {
                "Once what is marked above is right, its command stands here."
            }
        }
    }
}
