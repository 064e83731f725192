//! That something cannot be carried out, however often it is tried.

use order_service::command_line::in_words;

/// What cannot be carried out as it was asked for: the same would be refused again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

impl Refused {
    /// The refusal that an error amounts to, with all its causes.
    pub fn by(error: anyhow::Error) -> Self {
        Self(in_words(&error))
    }
}
