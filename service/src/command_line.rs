//! What the command lines of both programs have in common.
//!
//! | module | what it holds |
//! |---|---|
//! | [`exit`] | the exit codes |
//! | [`documents`] | completions for shells, and manual pages |
//! | [`output`] | standard output that is read by nobody any more, and colours |

pub mod documents;
pub mod exit;
pub mod output;

pub use documents::Documents;
pub use output::{NotWritten, in_words, is_coloured, print};
