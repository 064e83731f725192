//! Standard output, and colours.

use std::ffi::OsStr;
use std::io::{ErrorKind, IsTerminal, Write as _};

/// What was to be printed or written and could not be.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {what}: {error}")]
pub struct NotWritten {
    what: String,
    error: std::io::Error,
}

impl NotWritten {
    /// That a file, or whatever it is called, could not be written.
    pub fn new(what: impl ToString, error: std::io::Error) -> Self {
        Self { what: what.to_string(), error }
    }
}

/// Prints a text. That nobody reads it any more is no error: what follows is done all the same, and the exit
/// code says what came of it.
pub fn print(text: &str) -> Result<(), NotWritten> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(NotWritten::new("standard output", error)),
        _ => Ok(()),
    }
}

/// An error with its causes, each told once: some tell theirs themselves.
pub fn in_words(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if words.is_empty() {
            words = cause;
        } else if !words.ends_with(&cause) {
            words += &format!(": {cause}");
        }
    }
    words
}

/// Whether colours are wanted on a stream: on a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
pub fn is_coloured(stream: &impl IsTerminal) -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == OsStr::new("dumb"));
    stream.is_terminal() && !is_set("NO_COLOR") && !is_dumb
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_cause_is_told_once_whoever_tells_it() {
        let refused = || std::io::Error::new(ErrorKind::ConnectionRefused, "connection refused");
        let telling = NotWritten::new("the log", refused());
        let error = Err::<(), _>(telling).context("the run broke off").unwrap_err();
        assert_eq!(in_words(&error), "the run broke off: cannot write the log: connection refused");
        let error = Err::<(), _>(refused()).context("the run broke off: connection refused").unwrap_err();
        assert_eq!(in_words(&error), "the run broke off: connection refused");
    }
}
