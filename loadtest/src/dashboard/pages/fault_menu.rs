//! The menu from which a fault is put together, beside the text form.

use lab::ServerKind;
use maud::{Markup, html};

use crate::faults::{Size, What};

/// The units of a size: its value, and the word for it.
const UNITS: [(&str, &str); 3] = [("xlease", "× the lease"), ("s", "s"), ("ms", "ms")];

/// The menu. Its button adds the fault to the text, which is what counts.
pub(super) fn menu() -> Markup {
    let all = What::all();
    let of = |server: Option<ServerKind>| all.iter().filter(move |what| what.server() == server);
    html! {
        div.fault-menu role="group" aria-label="Add a fault" {
            div.field.what {
                label for="fault-what" { "What breaks" }
                select #fault-what name="fault-what" {
                    optgroup label="A replica of the shop" { @for what in of(None) { (option(*what)) } }
                    @for server in ServerKind::ALL {
                        @let title = server.title();
                        @if server.is_installed() {
                            optgroup label=(title) { @for what in of(Some(server)) { (option(*what)) } }
                        } @else {
                            optgroup label={ (title) ", not installed" } disabled {
                                @for what in of(Some(server)) { (option(*what)) }
                            }
                        }
                    }
                }
            }
            div.field {
                label for="fault-at" { "When" }
                span.measured {
                    input #fault-at name="fault-at" value="1" inputmode="decimal" autocomplete="off"
                        aria-describedby="fault-at-unit";
                    span.unit #fault-at-unit { "s in" }
                }
            }
            div.field {
                label for="fault-size" { "How long, or by how much" }
                span.measured {
                    input #fault-size name="fault-size" inputmode="decimal" autocomplete="off"
                        placeholder="as usual";
                    select name="fault-unit" aria-label="Unit" {
                        @for (unit, words) in UNITS { option value=(unit) { (words) } }
                    }
                }
            }
            button #add-fault type="submit" name="add-fault" value="1" formmethod="get" formaction="/run"
                formnovalidate { "Add" }
            p.message #fault-mistake role="alert" hidden {}
        }
    }
}

fn option(what: What) -> Markup {
    let usual = match what.size() {
        Size::None => String::new(),
        Size::Span | Size::Delay | Size::Step => {
            let text = what.to_string();
            let (_, size) = text.rsplit_once(':').unwrap_or(("", ""));
            format!(" ({})", size.replace("xlease", " × the lease"))
        }
    };
    let server = what.server().map_or("", ServerKind::title);
    html! { option value=(what) { (server) @if !server.is_empty() { " " } (what.words()) (usual) } }
}
