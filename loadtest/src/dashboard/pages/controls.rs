//! The form: what a person can choose.

use lab::ServerKind;
use maud::{Markup, html};
use order_service::config::StrategyName;

use crate::fleet::server_of;

use crate::dashboard::form::{Form, Mistakes};
use crate::dashboard::state::Inner;

/// The fields that are typed in: name, label, hint, and what keyboard suits them.
const TYPED: [(&str, &str, &str, &str); 10] = [
    ("replicas", "Replicas", "", "numeric"),
    ("stock", "Stock", "units at the beginning", "numeric"),
    ("buyers", "Buyers", "at the same time", "numeric"),
    ("orders", "Orders", "empty: 4000, or until all faults are over", "numeric"),
    ("duration", "Duration", "such as 10s, instead of orders", "text"),
    ("rate", "Arrival", "orders/s; empty: as fast as answered", "decimal"),
    ("quantity", "Quantity", "units per order: 1, or 1..3", "text"),
    ("batch", "Batch", "orders per transaction; 1: as taught", "numeric"),
    ("faults", "Faults", "such as kill@1s,pause:2xlease@2s", "text"),
    ("seed", "Seed", "of the quantities", "numeric"),
];

/// The servers of strategies that cannot be chosen for want of them.
fn missing_servers() -> impl Iterator<Item = ServerKind> {
    StrategyName::ALL.into_iter().filter_map(server_of).filter(|server| !server.is_installed())
}

/// The fields with what is in them, and what is wrong with it.
pub(in crate::dashboard) fn fields(form: &Form, mistakes: Option<&Mistakes>) -> Markup {
    let mistake = |name: &str| mistakes.and_then(|mistakes| mistakes.get(name));
    html! {
        fieldset aria-describedby=[mistake("strategy").map(|_| "strategy-mistake")] {
            legend { "How is the stock locked?" }
            div.choices {
                @for strategy in StrategyName::ALL {
                    @let missing = server_of(strategy).is_some_and(|server| !server.is_installed());
                    label.choice {
                        input type="checkbox" name="strategy" value=(strategy.as_str())
                            checked[form.strategies.contains(&strategy) && !missing] disabled[missing];
                        (strategy.as_str())
                    }
                }
            }
            @if let Some(mistake) = mistake("strategy") { p.message #strategy-mistake { (mistake) } }
            @for server in missing_servers() {
                p.note.install { (server.title()) " is not installed. " code { (server.install()) } }
            }
        }
        div.fields {
            (choice(form, mistake("store"), "store", "Store", &[("sqlite", "SQLite, a \
                file"), ("postgres", "PostgreSQL")]))
            (choice(form, mistake("guard"), "guard", "Guard", &[("", "as \
                usual"), ("version", "version"), ("off", "off")]))
            (choice(form, mistake("control"), "control", "Control without a \
                lock", &[("", "yes"), ("off", "no")]))
            @for (name, label, hint, keyboard) in TYPED {
                div.field {
                    label for={ "field-" (name) } { (label) }
                    input id={ "field-" (name) } name=(name) value=(form.value(name))
                        inputmode=(keyboard) autocomplete="off"
                        aria-invalid=[mistake(name).map(|_| "true")] aria-describedby={ (name) "-hint" };
                    @match mistake(name) {
                        Some(mistake) => span.error id={ (name) "-hint" } { (mistake) },
                        None => span.hint id={ (name) "-hint" } { (hint) },
                    }
                }
            }
        }
    }
}

fn choice(
    form: &Form,
    mistake: Option<&String>,
    name: &str,
    label: &str,
    options: &[(&str, &str)],
) -> Markup {
    let hint = format!("{name}-hint");
    html! {
        div.field {
            label for={ "field-" (name) } { (label) }
            select id={ "field-" (name) } name=(name) aria-invalid=[mistake.map(|_| "true")]
                aria-describedby=[mistake.map(|_| &hint)] {
                @for (value, words) in options {
                    option value=(value) selected[form.value(name) == *value] { (words) }
                }
            }
            @if let Some(mistake) = mistake { span.error id=(hint) { (mistake) } }
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
            @if let Some(experiment) = inner.experiment {
                span.note { "The experiment " (experiment) " goes on: one thing at a time." }
            }
        }
    }
}

/// The same for a terminal.
pub(in crate::dashboard) fn command_line(form: &Form) -> Markup {
    html! {
        div {
            p.note #command-label { "The same on a terminal" }
            pre.command #command tabindex="0" role="region" aria-labelledby="command-label" {
                (command(form))
            }
        }
    }
}

/// The command line of a form, or what is wrong with it.
pub(in crate::dashboard) fn command(form: &Form) -> String {
    match form.plan() {
        Ok(plan) => plan.command_line(),
        Err(mistakes) => {
            let words = mistakes.iter().map(|(name, mistake)| format!("{name} {mistake}"));
            words.collect::<Vec<_>>().join("\n")
        }
    }
}
