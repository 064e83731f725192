//! Limits on a process that runs, by the program `prlimit` of util-linux.

use std::io;
use std::path::Path;
use std::process::Stdio;

use nix::unistd::User;

use crate::user::as_user;

/// What is limited.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limited {
    /// The size of files: a write beyond it fails.
    FileSize,
    /// How many files may be open.
    Files,
}

/// Sets a limit of the process `id`, which runs as `user` if one is given, or lifts it. What is beyond it
/// already stays as it is.
pub(crate) async fn limit(id: i32, user: Option<&User>, what: Limited, limit: Option<u64>) -> io::Result<()> {
    let name = match what {
        Limited::FileSize => "fsize",
        Limited::Files => "nofile",
    };
    // Whoever runs as the same user may do so, and root need not be allowed to.
    let mut command = as_user(user, Path::new("prlimit"));
    command.args(["--pid", &id.to_string()]).stdin(Stdio::null());
    match limit {
        // The soft limit alone: the hard one cannot be raised again by everybody.
        Some(limit) => command.arg(format!("--{name}={limit}:")),
        None => {
            let limits = tokio::fs::read_to_string(format!("/proc/{id}/limits")).await?;
            let unreadable = || io::Error::other("its limits cannot be read");
            let hard = hard_limit(&limits, what).ok_or_else(unreadable)?;
            command.arg(format!("--{name}={hard}:"))
        }
    };
    let output = command.output().await?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// The hard limit in the text of `/proc/ID/limits`.
fn hard_limit(limits: &str, what: Limited) -> Option<&str> {
    let name = match what {
        Limited::FileSize => "Max file size",
        Limited::Files => "Max open files",
    };
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hard_limit_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max file size             1048576              unlimited            bytes     \n\
                      Max open files            1024                 20000                files     \n";
        assert_eq!(hard_limit(limits, Limited::FileSize), Some("unlimited"));
        assert_eq!(hard_limit(limits, Limited::Files), Some("20000"));
        assert_eq!(hard_limit("", Limited::Files), None);
    }
}
