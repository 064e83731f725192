//! One moment of a run in all its charts at once: what is under the pointer, or chosen by the keyboard.
//!
//! The only script of a frozen page: it asks nothing of any network, and without it the page shows the same
//! but for the cursor.

use maud::{Markup, html};
use serde_json::json;

/// The script.
pub const SCRIPT: &str = include_str!("cursor.js");

/// The script's digest, by which a page allows it and no other:
/// `openssl dgst -sha256 -binary loadtest/src/report/html/cursor.js | base64`. A browser that is shown a
/// frozen page complains of a wrong one.
pub const SCRIPT_DIGEST: &str = "sha256-XY4q1scDNougqxBUP3L4Wlyze3AQiDv7n8OMD223cy4=";

/// What all charts show at each moment: when it ends, in milliseconds, and in words.
pub(super) fn moments(moments: impl Iterator<Item = (f64, Vec<String>)>) -> Markup {
    let rows: Vec<_> = moments.map(|(until_ms, words)| json!([tenths(until_ms), words])).collect();
    html! { div hidden data-moments=(json!(rows)) {} }
}

/// The figures of the moment that is pointed at. The script shows it.
pub fn readout() -> Markup {
    html! {
        div.readout hidden {
            input type="range" min="0" max="1000" step="5" value="0" aria-label="Moment of the run";
            output { "Point at a chart, or move this slider, to see one moment in all of them." }
        }
    }
}

/// A time for the script.
pub(super) fn tenths(ms: f64) -> f64 {
    (ms * 10.0).round() / 10.0
}
