//! A part of a page, which is brought to open pages again when it changes.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use maud::{Markup, html};

/// A part.
pub(in crate::dashboard) struct Part {
    /// Its name on the page.
    pub(in crate::dashboard) id: String,
    /// What is in it, as text.
    pub(in crate::dashboard) text: String,
    /// What tells it from what was in it before. Nothing is exchanged that is the same, least of all a button
    /// while it is pressed.
    pub(in crate::dashboard) hash: String,
    markup: Markup,
}

impl Part {
    pub(super) fn new(id: &str, markup: Markup) -> Self {
        let text = markup.0.clone();
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self { id: id.into(), text, hash: format!("{:016x}", hasher.finish()), markup }
    }

    /// The part where it belongs.
    pub(super) fn in_place(&self) -> Markup {
        html! { div.part id=(self.id) data-hash=(self.hash) { (self.markup) } }
    }
}
