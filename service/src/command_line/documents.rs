//! Completions for shells, and manual pages: made from the command line itself.

use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory, Subcommand};
use clap_complete::Shell;
use clap_mangen::Man;

use super::output::{NotWritten, print};

/// What a program says of its own command line.
#[derive(Debug, Clone, Subcommand)]
pub enum Documents {
    /// Print the completions for a shell, such as bash
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page, or write those of all commands into a directory
    Man {
        /// The directory, such as ~/.local/share/man/man1
        directory: Option<PathBuf>,
    },
}

impl Documents {
    /// Prints or writes the documents of the program whose command line is `Program`.
    pub fn run<Program: CommandFactory>(&self) -> Result<(), NotWritten> {
        let mut command = Program::command().disable_help_subcommand(true);
        match self {
            Self::Completions { shell } => {
                let (name, mut text) = (command.get_name().to_owned(), Vec::new());
                clap_complete::generate(*shell, &mut command, name, &mut text);
                print(&String::from_utf8_lossy(&text))
            }
            Self::Man { directory: Some(directory) } => write_pages(command, directory),
            Self::Man { directory: None } => {
                let mut text = Vec::new();
                Man::new(command).render(&mut text).map_err(|error| NotWritten::new("the page", error))?;
                print(&String::from_utf8_lossy(&text))
            }
        }
    }
}

/// Writes `NAME.1`, and `NAME-COMMAND.1` for each command.
fn write_pages(command: Command, directory: &Path) -> Result<(), NotWritten> {
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command, directory))
        .map_err(|error| NotWritten::new(directory.display(), error))
}
