//! What the servers have in common.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use nix::unistd::User;
use tokio::process::Command;

use crate::ProcessError;

/// Why a server cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Its program is not there.
    #[error("{program} is not installed; {install}")]
    NotInstalled {
        /// Which program was looked for.
        program: &'static str,
        /// What would install it.
        install: &'static str,
    },
    /// Its directory cannot be prepared.
    #[error("cannot prepare {what}: {source}")]
    Prepare {
        /// What failed.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// Its data directory cannot be initialised.
    #[error("initdb failed: {0}")]
    Init(String),
    /// It does not start.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// A command that runs as `user`, if one is given, and ends with the thread that starts it.
pub(crate) fn as_user(user: Option<&User>, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(user) = user {
        command.args(["--reuid", &user.name, "--regid", &user.gid.to_string(), "--clear-groups"]);
    }
    command.arg("--").arg(program);
    command
}

/// A port that nobody listens on at this moment.
pub(crate) fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
