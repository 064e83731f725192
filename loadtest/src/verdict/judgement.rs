//! The result of a check, before it has a name.

use crate::attempt::Attempt;

/// The result of a check, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It holds.
    Pass(String),
    /// It does not.
    Fail(String),
    /// It could not be seen.
    Unknown(String),
    /// There was nothing to check.
    NotApplicable(String),
}

/// How many culprits are named.
const NAMED: usize = 3;

impl Judgement {
    /// Fails with the first of what was found wrong, or passes with `detail`.
    pub(super) fn of(wrong: Vec<String>, detail: String) -> Self {
        if wrong.is_empty() {
            return Self::Pass(detail);
        }
        let named = wrong[..wrong.len().min(NAMED)].join("; ");
        let more = wrong.len().saturating_sub(NAMED);
        Self::Fail(if more > 0 { format!("{named}; and {more} more") } else { named })
    }
}

/// What an attempt is called in the words of a check: its buyer.
pub(super) fn name(attempt: &Attempt) -> String {
    Attempt::buyer(attempt.index)
}
