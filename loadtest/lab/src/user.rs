//! Commands that run as another user, and end with whoever starts them.

use std::path::Path;

use nix::unistd::User;
use tokio::process::Command;

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
