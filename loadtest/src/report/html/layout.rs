//! A document: what surrounds the parts.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::cursor;

/// How everything looks.
pub const STYLE: &str = concat!(
    include_str!("style/base.css"),
    include_str!("style/verdict.css"),
    include_str!("style/bar.css"),
    include_str!("style/charts.css"),
    include_str!("style/comparison.css"),
    include_str!("style/form.css"),
    include_str!("style/shop.css"),
    include_str!("style/stories.css"),
    include_str!("style/past.css"),
    include_str!("style/experiments.css")
);

/// What a frozen page may do: nothing but show itself, with the one script that it has.
fn nothing_else() -> String {
    let script = cursor::SCRIPT_DIGEST;
    format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src '{script}'; base-uri 'none'; \
         form-action 'none'"
    )
}

/// The pages of the dashboard.
pub const PAGES: [(&str, &str); 5] = [
    ("/start", "Start"),
    ("/run", "Run"),
    ("/shop", "Your shop"),
    ("/experiments", "Experiments"),
    ("/runs", "Past runs"),
];

/// A page in one file.
pub fn frozen(title: &str, body: &Markup) -> Markup {
    // At its end, when there is something to point at.
    let body = &html! { (body) script { (PreEscaped(cursor::SCRIPT)) } };
    document(
        title,
        &html! {
            meta http-equiv="Content-Security-Policy" content=(nothing_else());
            // The style sheet is this program's own.
            style { (PreEscaped(STYLE)) }
        },
        &html! { p.kind { "Load test report" } },
        body,
    )
}

/// A page of the dashboard, at `here`.
pub fn served(title: &str, here: &str, body: &Markup) -> Markup {
    document(
        title,
        &html! {
            link rel="icon" href="/icon.svg" type="image/svg+xml";
            link rel="stylesheet" href="/style.css";
            script src="/page.js" defer {}
            script src="/cursor.js" defer {}
            script src="/form.js" defer {}
        },
        &html! {
            nav aria-label="Pages" {
                @for (address, name) in PAGES {
                    a href=(address) aria-current=[(address == here).then_some("page")] { (name) }
                }
            }
        },
        body,
    )
}

fn document(title: &str, head: &Markup, header: &Markup, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " – StockLock" }
                (head)
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                (patterns())
                header.top { a.name href="#main" { (mark()) "StockLock" } (header) }
                main #main tabindex="-1" { (body) }
                footer { p {
                    "StockLock: is any sold that is not there? The verdict comes from the database."
                } }
            }
        }
    }
}

/// The hatchings of overlaps and of what is not known, which all drawings of a page share.
fn patterns() -> Markup {
    html! {
        svg.patterns width="0" height="0" aria-hidden="true" focusable="false" {
            defs {
                pattern #unknown width="8" height="8" patternUnits="userSpaceOnUse"
                    patternTransform="rotate(-45)" {
                    rect.hatch-ground width="8" height="8" {}
                    rect.unknown-line width="2" height="8" {}
                }
                pattern #hatch width="6" height="6" patternUnits="userSpaceOnUse"
                    patternTransform="rotate(45)" {
                    rect.hatch-ground width="6" height="6" {}
                    rect.hatch-line width="3" height="6" {}
                }
            }
        }
    }
}

/// The product's sign: a lock whose body is a stack.
pub fn mark() -> Markup {
    html! {
        svg.sign viewBox="0 0 24 24" aria-hidden="true" focusable="false" {
            path d="M7 10V7a5 5 0 0 1 10 0v3" fill="none" stroke="currentColor" stroke-width="2.2" {}
            path d="M4 10h16v3.2H4zM4 14.4h16v3.2H4zM4 18.8h16V22H4z" fill="currentColor" {}
        }
    }
}
