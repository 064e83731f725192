//! The programs that the service and the load generator are measured against or with.

use std::path::PathBuf;

use lab::ServerKind;

/// Something that a measurement cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// A server.
    Server(ServerKind),
    /// What PostgreSQL is measured with; it comes with the server.
    Pgbench,
    /// The load on the service.
    Wrk,
    /// What the load generator is measured against.
    Oha,
}

impl Need {
    /// What is missing, with the command that installs it; `None` when it is there.
    pub(super) fn missing(self) -> Option<String> {
        let (is_there, name, install) = match self {
            Self::Server(kind) => return kind.missing(),
            Self::Pgbench => (pgbench().is_some(), "pgbench", ServerKind::Postgres.install()),
            Self::Wrk => (wrk().is_some(), "wrk", "apt-get install wrk"),
            Self::Oha => (oha().is_some(), "oha", "cargo install oha --locked"),
        };
        (!is_there).then(|| format!("{name} is not installed; {install}"))
    }
}

/// Where `wrk` is.
pub(super) fn wrk() -> Option<PathBuf> {
    on_path("wrk")
}

/// Where `oha` is.
pub(super) fn oha() -> Option<PathBuf> {
    on_path("oha")
}

/// Where `pgbench` is: where Debian puts the newest version, or on the path.
pub(super) fn pgbench() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.max_by_key(|version| version.file_name().to_string_lossy().parse::<u32>().ok());
    let debian = newest.map(|version| version.path().join("bin/pgbench")).filter(|file| file.is_file());
    debian.or_else(|| on_path("pgbench"))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}
