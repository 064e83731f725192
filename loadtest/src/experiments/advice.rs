//! What follows from a trial for whoever builds a shop.

use super::Finding;

/// Advice, for when the claim is reproduced and for when it is refuted.
#[derive(Debug, Clone, Copy)]
pub struct Advice {
    reproduced: &'static str,
    refuted: &'static str,
}

const OTHERWISE: &str = "It came out otherwise than it usually does. Look at what was observed and why, \
    and try it again, before you rely on either.";

const NOTHING: &str = "This trial says nothing, neither for the claim nor against it: what the claim is \
    about did not come to pass. Try it again, best while nothing else uses the machine.";

const NOT_RUN: &str = "Nothing is known here yet. Install what is missing, and try it again.";

impl Advice {
    /// For a claim that holds.
    pub(super) const fn if_reproduced(reproduced: &'static str) -> Self {
        Self { reproduced, refuted: OTHERWISE }
    }

    /// For a claim that may come out either way.
    pub(super) const fn either(reproduced: &'static str, refuted: &'static str) -> Self {
        Self { reproduced, refuted }
    }

    /// What follows from a finding.
    pub fn on(self, finding: Finding) -> &'static str {
        match finding {
            Finding::Reproduced => self.reproduced,
            Finding::Refuted => self.refuted,
            Finding::Inconclusive => NOTHING,
            Finding::NotRun => NOT_RUN,
        }
    }
}
