//! Where what a command has found is written, and where it says what it does.

use std::ffi::OsString;
use std::fmt;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use loadtest::refusal::Refused;
use loadtest::report::Screen;
use order_service::command_line::{NotWritten, print};

/// A file, or standard output, which is written `-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// Standard output.
    Stdout,
    /// A file.
    File(PathBuf),
}

impl From<OsString> for Destination {
    fn from(text: OsString) -> Self {
        if text == "-" { Self::Stdout } else { Self::File(text.into()) }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Destination {
    /// Writes a text, in place of what was there.
    pub(super) fn write(&self, text: &str) -> Result<(), NotWritten> {
        let written = match self {
            Self::Stdout => return print(text),
            Self::File(path) => std::fs::write(path, text),
        };
        written.map_err(|error| NotWritten::new(self, error))
    }

    /// Writes a value as JSON.
    pub(super) fn write_json(&self, value: &impl serde::Serialize) -> Result<(), NotWritten> {
        let json = serde_json::to_string_pretty(value).expect("a report can be written as JSON");
        self.write(&(json + "\n"))
    }

    /// Writes a text behind what is there.
    pub(super) fn append(&self, text: &str) -> Result<(), NotWritten> {
        let Self::File(path) = self else { return self.write(text) };
        let file = OpenOptions::new().create(true).append(true).open(path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| NotWritten::new(self, error))
    }

    /// Whether it can be written, found out before there is anything to write. What is there stays.
    fn check(&self) -> Result<(), Refused> {
        let Self::File(path) = self else { return Ok(()) };
        // A link to a file that is not there yet is there itself.
        let is_new = path.symlink_metadata().is_err();
        let opened = OpenOptions::new().create(true).append(true).open(path);
        let opened = opened.with_context(|| format!("cannot write {self}")).map_err(Refused::by)?;
        drop(opened);
        if is_new {
            // It was made to see whether it can be.
            std::fs::remove_file(path).ok();
        }
        Ok(())
    }
}

/// Refuses destinations that cannot be written, and two that are standard output.
pub(super) fn check<'a>(destinations: impl IntoIterator<Item = &'a Destination>) -> Result<(), Refused> {
    let mut is_taken = false;
    for destination in destinations {
        destination.check()?;
        if *destination == Destination::Stdout && std::mem::replace(&mut is_taken, true) {
            return Err(Refused("standard output can take one of them, and not two".into()));
        }
    }
    Ok(())
}

/// Where a command says to people what it has found: elsewhere, where programs read standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum People {
    /// On standard output.
    Stdout,
    /// On standard error.
    Stderr,
}

impl People {
    /// Where people read while these are written.
    pub(super) fn beside<'a>(destinations: impl IntoIterator<Item = &'a Destination>) -> Self {
        let is_taken = destinations.into_iter().any(|destination| *destination == Destination::Stdout);
        if is_taken { Self::Stderr } else { Self::Stdout }
    }

    /// Says something. That nobody reads it any more is no error.
    pub(super) fn say(self, text: impl fmt::Display) -> Result<(), NotWritten> {
        match self {
            Self::Stdout => Destination::Stdout.write(&format!("{text}\n")),
            Self::Stderr => {
                // Where that cannot be written, there is nowhere to say so.
                writeln!(std::io::stderr(), "{text}").ok();
                Ok(())
            }
        }
    }

    /// What it is shown on.
    pub(super) fn screen(self) -> Screen {
        match self {
            Self::Stdout => Screen::of(&std::io::stdout()),
            Self::Stderr => Screen::of(&std::io::stderr()),
        }
    }
}
