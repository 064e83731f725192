//! A laboratory: processes that live in a temporary directory and die with their owner.
//!
//! The owner may end in any way, by return, panic, Ctrl-C or `kill -9`; nothing it started goes on running.
//! A process is ended in three ways, any of which is enough: its [`Process`] is dropped; the kernel ends it
//! when the owner's process is gone (Linux, also when it is stopped); its standard input ends, where it has
//! called [`die_with_parent`].

mod parent;
mod postgres;
mod process;
mod redis;
mod server;
mod spawner;
mod zookeeper;

use std::path::{Path, PathBuf};

pub use parent::die_with_parent;
pub use postgres::{INSTALL_POSTGRES, Postgres};
pub use process::{Process, ProcessError};
pub use redis::{INSTALL_REDIS, Redis};
pub use server::ServerError;
pub use zookeeper::{INSTALL_ZOOKEEPER, Zookeeper};

/// A temporary directory for the files and logs of an experiment.
#[derive(Debug)]
pub struct Lab {
    directory: tempfile::TempDir,
}

impl Lab {
    /// Makes the directory. It is removed with the value, unless it is [kept](Self::keep).
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { directory: tempfile::Builder::new().prefix("stocklock-lab-").tempdir()? })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A file in the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Leaves the directory where it is, for somebody to look at.
    pub fn keep(mut self) -> PathBuf {
        self.directory.disable_cleanup(true);
        self.directory.path().into()
    }
}
