//! The start page: stories to click on, and then the free form.

use lab::ServerKind;
use maud::{Markup, html};

use super::controls;
use crate::dashboard::form::Form;
use crate::dashboard::state::Inner;
use crate::dashboard::stories::{Act, Does, STORIES, Story, told};
use crate::report::html::layout;

/// The page.
pub(in crate::dashboard) fn page(inner: &Inner) -> Markup {
    let form = Form::default();
    let missing: Vec<_> = ServerKind::ALL.into_iter().filter(|server| !server.is_installed()).collect();
    let body = html! {
        section.welcome {
            h1 { "Is anything sold that is not there?" }
            p {
                "A shop runs on several machines and sells the same stock on all of them. Does its lock keep \
                 two from selling the same unit? Here real replicas of a shop are started on this machine, \
                 real orders are fired at them, and the database is asked afterwards what was sold."
            }
            p.note {
                "Begin with the hair dryers, which take some seconds; or describe a run of your own "
                a href="#free" { "further down" }
                ". A replica is one process of the shop. Everything runs on this machine, and nothing is \
                 left behind but the reports."
            }
            @if inner.is_busy() {
                p.message { "Something goes on: " a href="/run" { "see it" } ", or stop it there first." }
            }
        }
        div.stories { @for (number, story) in STORIES.iter().enumerate() { (card(inner, number, story)) } }
        @if !missing.is_empty() {
            section.card aria-labelledby="missing" {
                h2 #missing { "What is not installed here" }
                p.note { "The stories with the sign ○ need it. Once it is installed, load this page again." }
                dl.facts { @for server in &missing {
                    div { dt { (server.title()) } dd { code { (server.install()) } } }
                } }
            }
        }
        section.free #free aria-labelledby="free-title" {
            h2 #free-title { "A run of your own" }
            form.card.controls #controls method="post" action="/run" aria-label="Controls"
                data-command="/command" data-address="/run" {
                // What Enter presses in a field: a form's first button, which would be that of the faults.
                button type="submit" hidden disabled[inner.is_busy()] { "Run" }
                (controls::fields(&form, None))
                (controls::buttons(inner))
                (controls::command_line(&form))
            }
        }
    };
    layout::served("Start", "/start", &body)
}

fn card(inner: &Inner, number: usize, story: &Story) -> Markup {
    let id = format!("story-{number}");
    html! {
        article.card.story aria-labelledby=(id) {
            h2 id=(id) { (story.title) }
            p { (story.plot) }
            ul.acts { @for act in story.acts { li { (button(inner, act)) } } }
            details id={ (id) "-look" } {
                summary { "What to look for" }
                @for act in story.acts {
                    p.note { @if story.acts.len() > 1 { b { (act.title) ": " } } (act.look_for) }
                }
            }
        }
    }
}

/// The button of an act, and what keeps it from being pressed.
fn button(inner: &Inner, act: &Act) -> Markup {
    let missing: Vec<_> = act.needs().into_iter().filter(|server| !server.is_installed()).collect();
    let is_disabled = inner.is_busy() || !missing.is_empty();
    let titles: Vec<_> = missing.iter().map(|server| server.title()).collect();
    let needed: Vec<_> = act.needs().into_iter().map(ServerKind::title).collect();
    html! {
        @match act.does {
            Does::Run(choices) => form method="post" action="/run" {
                @for (name, value) in form_urlencoded::parse(choices.as_bytes()) {
                    input type="hidden" name=(name) value=(value);
                }
                button type="submit" disabled[is_disabled] { (act.title) }
            },
            Does::Try(name) => form method="post" action={ "/experiments/" (name) } {
                button type="submit" disabled[is_disabled] { (act.title) }
            },
            Does::Open(address) => a.button-link href=(address) { (act.title) },
        }
        @if !missing.is_empty() {
            p.note {
                "○ needs " (titles.join(", "))
                @for server in &missing { " " code { (server.install()) } }
            }
        } @else if needed.is_empty() {
            p.note { @if !matches!(act.does, Does::Open(_)) { "● runs here, without any server" } }
        } @else {
            p.note { "● runs here, with " (needed.join(", ")) }
        }
    }
}

/// What to look for in the run that is shown, where its form is that of a story.
pub(in crate::dashboard) fn beside(inner: &Inner) -> Markup {
    let told = inner.suite.as_ref().and_then(|suite| told(&suite.form));
    let Some((story, act)) = told else { return html! {} };
    html! {
        aside.told aria-label="What to look for" {
            p { b { (story.title) @if story.acts.len() > 1 { ", " (act.title) } ". " } (act.look_for) }
            ul.acts {
                @for other in story.acts.iter().filter(|other| !std::ptr::eq(*other, act)) {
                    li { (button(inner, other)) }
                }
                li { a.button-link href="/start" { "All stories" } }
            }
        }
    }
}
