//! One field of the form: its label, what is in it, and a line on what belongs there or is wrong with it.

use maud::{Markup, html};

/// A field that is typed in.
pub(super) struct Typed {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    /// In what it is counted; empty where the text says it.
    pub(super) unit: &'static str,
    pub(super) hint: &'static str,
    /// What keyboard suits it.
    pub(super) keyboard: &'static str,
}

/// One of them.
pub(super) const fn typed(
    name: &'static str,
    label: &'static str,
    unit: &'static str,
    hint: &'static str,
    keyboard: &'static str,
) -> Typed {
    Typed { name, label, unit, hint, keyboard }
}

/// What is wrong, or else what belongs there; both under one name, which the field is described by.
fn line(name: &str, mistake: Option<&String>, hint: &str) -> Markup {
    html! {
        span id={ (name) "-hint" } class=(if mistake.is_some() { "error" } else { "hint" }) data-hint=(hint) {
            @if let Some(mistake) = mistake { (mistake) } @else { (hint) }
        }
    }
}

/// Draws it. The `first` that is wrong has the focus.
pub(super) fn input(typed: &Typed, value: &str, mistake: Option<&String>, first: bool) -> Markup {
    let Typed { name, label, unit, hint, keyboard } = *typed;
    html! {
        div.field {
            label for={ "field-" (name) } { (label) }
            span.measured {
                input id={ "field-" (name) } name=(name) value=(value) inputmode=(keyboard) autocomplete="off"
                    aria-invalid=[mistake.map(|_| "true")] aria-describedby={ (name) "-unit " (name) "-hint" }
                    autofocus[first];
                span.unit id={ (name) "-unit" } { (unit) }
            }
            (line(name, mistake, hint))
        }
    }
}

/// The same over the whole width.
pub(super) fn wide(
    name: &str,
    label: &str,
    value: &str,
    mistake: Option<&String>,
    first: bool,
    hint: &str,
) -> Markup {
    html! {
        div.field {
            label for={ "field-" (name) } { (label) }
            input id={ "field-" (name) } name=(name) value=(value) autocomplete="off" spellcheck="false"
                aria-invalid=[mistake.map(|_| "true")] aria-describedby={ (name) "-hint" } autofocus[first];
            (line(name, mistake, hint))
        }
    }
}

/// A field for several lines.
pub(super) fn lines(
    name: &str,
    label: &str,
    value: &str,
    mistake: Option<&String>,
    first: bool,
    hint: &str,
) -> Markup {
    html! {
        div.field.wide {
            label for={ "field-" (name) } { (label) }
            textarea id={ "field-" (name) } name=(name) rows="2" autocomplete="off" spellcheck="false"
                aria-invalid=[mistake.map(|_| "true")] aria-describedby={ (name) "-hint" } autofocus[first] {
                (value)
            }
            (line(name, mistake, hint))
        }
    }
}

/// A field that is chosen from a list.
pub(super) fn chosen(
    name: &str,
    label: &str,
    value: &str,
    mistake: Option<&String>,
    first: bool,
    options: &[(&str, &str)],
) -> Markup {
    html! {
        div.field {
            label for={ "field-" (name) } { (label) }
            select id={ "field-" (name) } name=(name) aria-invalid=[mistake.map(|_| "true")]
                aria-describedby={ (name) "-hint" } autofocus[first] {
                @for (option, words) in options {
                    option value=(option) selected[value == *option] { (words) }
                }
            }
            (line(name, mistake, ""))
        }
    }
}
