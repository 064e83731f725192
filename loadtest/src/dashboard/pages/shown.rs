//! What the first page shows of a run, or of none.

use maud::{Markup, html};

use crate::report::html::bar::Jump;
use crate::report::html::verdict::Banner;

/// What the page shows of a run, or of none.
pub(super) struct Shown {
    /// The verdict, or what stands in its place.
    pub(super) banner: Banner,
    /// What stands under the banner.
    pub(super) under: Markup,
    /// The four figures.
    pub(super) tiles: Markup,
    /// The charts, the lock timeline, and what else there is.
    pub(super) evidence: [Markup; 3],
    /// The counterexample and the checks.
    pub(super) proof: Markup,
    /// Links to the parts of the page.
    pub(super) jumps: Vec<Jump>,
}

impl Shown {
    /// No more than a banner.
    pub(super) fn only(banner: Banner) -> Self {
        let nothing = || html! {};
        let evidence = [nothing(), nothing(), nothing()];
        let (under, tiles, proof) = (nothing(), nothing(), nothing());
        Self { banner, under, tiles, evidence, proof, jumps: Vec::new() }
    }
}
