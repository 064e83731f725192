//! A clock of a server's own, which can be stepped: libfaketime stands between the server and the system's
//! clock.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::unistd::User;
use tokio::process::Command;

use crate::user::as_user;
use crate::{Lab, Process};

/// The command that installs what steps clocks.
pub const INSTALL_FAKETIME: &str = "apt-get install libfaketime";

/// Whether clocks can be stepped here.
pub fn can_step_clocks() -> bool {
    library().is_some()
}

/// The clock of one server: so many seconds ahead of the system's. Only the time of day is stepped; what
/// counts how much time has passed (`CLOCK_MONOTONIC`) goes on as before, as when an administrator or NTP
/// sets a clock.
#[derive(Debug)]
pub(crate) struct Clock {
    library: PathBuf,
    file: PathBuf,
    /// The processes that have lived by it.
    governed: Mutex<Vec<i32>>,
}

impl Clock {
    /// A clock that is right, kept in `lab`; `None` where libfaketime is not installed.
    pub(crate) fn new(lab: &Lab) -> io::Result<Option<Self>> {
        let Some(library) = library() else { return Ok(None) };
        let clock = Self { library, file: lab.file("clock"), governed: Mutex::default() };
        clock.set(0)?;
        Ok(Some(clock))
    }

    /// The command that runs `program` by the clock, whose arguments may follow. The file is read whenever
    /// the time is.
    pub(crate) fn run(&self, user: Option<&User>, program: &Path) -> Command {
        // What it makes in memory belongs to whom it is loaded by: that must not be who changes the user.
        let mut command = as_user(user, Path::new("env"));
        let mut preload = OsString::from("LD_PRELOAD=");
        preload.push(&self.library);
        // Memory from the C library: another allocator (jemalloc, in Redis) asks what time it is while it is
        // asked for memory to find that out, and waits for itself.
        preload.push(" libc.so.6");
        let mut file = OsString::from("FAKETIME_TIMESTAMP_FILE=");
        file.push(&self.file);
        command.args([preload, file]);
        command.args(["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1"]);
        command.arg(program);
        command
    }

    /// Notes a process that lives by the clock.
    pub(crate) fn note(&self, process: &Process) {
        self.governed.lock().unwrap_or_else(PoisonError::into_inner).push(process.id());
    }

    /// Sets it so many seconds ahead of the system's, or behind.
    pub(crate) fn set(&self, ahead: i64) -> io::Result<()> {
        // Never half written.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{ahead:+}\n"))?;
        std::fs::rename(new, &self.file)
    }
}

impl Drop for Clock {
    /// Removes from the shared memory what processes have left there that were killed.
    fn drop(&mut self) {
        for process in self.governed.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            for name in ["sem.faketime_sem_", "faketime_shm_"] {
                std::fs::remove_file(format!("/dev/shm/{name}{process}")).ok();
            }
        }
    }
}

/// The command that runs `program`, by a clock if there is one.
pub(crate) fn run_by(clock: Option<&Clock>, user: Option<&User>, program: &Path) -> Command {
    clock.map_or_else(|| as_user(user, program), |clock| clock.run(user, program))
}

/// Where Debian puts it: below the directory of the machine's kind.
fn library() -> Option<PathBuf> {
    let kinds = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    let beside = |kind: PathBuf| kind.join("faketime/libfaketime.so.1");
    kinds.map(beside).find(|file: &PathBuf| Path::is_file(file))
}
