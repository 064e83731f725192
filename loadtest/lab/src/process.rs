//! A child process with a log.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::limits::{Limited, limit};
use crate::spawner;

/// How many lines of a log are shown when its process has died.
const TAIL: usize = 40;

/// A running child process. Its drop ends it with SIGKILL.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    pid: Pid,
    /// Held here, since waiting for a child closes the pipe it has, and the end of the pipe ends the child.
    _lifeline: Option<ChildStdin>,
}

/// What went wrong with a child process.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("{name} cannot be started: {source}")]
    Start {
        /// Which process.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// It ended, or did not say in time that it is ready.
    #[error("{name} {what}; the end of its log {log}:\n{tail}", log = log.display())]
    NotReady {
        /// Which process.
        name: String,
        /// What it did instead.
        what: String,
        /// The file that its output goes to.
        log: PathBuf,
        /// The last lines of its log.
        tail: String,
    },
    /// It could not be signalled or waited for.
    #[error("{name}: {what}")]
    Signal {
        /// Which process.
        name: String,
        /// Why.
        what: String,
    },
}

impl Process {
    async fn spawn(
        name: String,
        mut command: Command,
        log: PathBuf,
    ) -> Result<(Self, ChildStdout), ProcessError> {
        let start = |source| ProcessError::Start { name: name.clone(), source };
        let file = std::fs::File::options().create(true).append(true).open(&log).map_err(start)?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            // Ctrl-C on the terminal is for the owner, who then ends its children.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = spawner::spawn(command).await.map_err(start)?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let pid = pid.ok_or_else(|| start(std::io::Error::other("it ended at once")))?;
        let stdout = child.stdout.take().expect("the standard output is a pipe");
        let lifeline = child.stdin.take();
        Ok((Self { name, log, child, pid, _lifeline: lifeline }, stdout))
    }

    /// Starts `command` with its output going to `log`, and waits until a line of its standard output begins
    /// with `ready`; returns the rest of that line too.
    pub async fn start(
        name: impl Into<String>,
        command: Command,
        log: PathBuf,
        ready: &str,
        within: Duration,
    ) -> Result<(Self, String), ProcessError> {
        let (mut process, stdout) = Self::spawn(name.into(), command, log).await?;
        let (announced, _) = copy_and_find(stdout, process.log.clone(), ready.to_owned());
        match timeout(within, announced).await {
            Ok(Ok(rest)) => Ok((process, rest)),
            Ok(Err(_)) => {
                let status = timeout(within, process.child.wait()).await;
                let what = match status {
                    Ok(Ok(status)) => format!("ended with {status}"),
                    _ => "closed its output".into(),
                };
                Err(process.not_ready(what))
            }
            Err(_) => Err(process.not_ready(format!("was not ready within {within:?}"))),
        }
    }

    /// Starts `command` with its output going to `log`, and waits until `is_ready` says so, which is asked
    /// again and again. It is given the id of the process, since whoever answers at its address may be
    /// another.
    pub async fn start_and_probe<Probe: Future<Output = bool>>(
        name: impl Into<String>,
        command: Command,
        log: PathBuf,
        within: Duration,
        is_ready: impl Fn(i32) -> Probe,
    ) -> Result<Self, ProcessError> {
        let (mut process, stdout) = Self::spawn(name.into(), command, log).await?;
        let (_, copied) = copy_and_find(stdout, process.log.clone(), String::new());
        let give_up = Instant::now() + within;
        while !is_ready(process.id()).await {
            if let Some(status) = process.exited() {
                // Its last words say why. A child that it has left behind may keep the output open.
                timeout(Duration::from_secs(1), copied).await.ok();
                return Err(process.not_ready(format!("ended with {status}")));
            }
            if Instant::now() >= give_up {
                return Err(process.not_ready(format!("was not ready within {within:?}")));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(process)
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, which is still its own after its end, until the value is dropped.
    pub fn id(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Ends it at once, as a power cut would: SIGKILL. Returns when it is gone.
    pub async fn kill(&mut self) -> Result<(), ProcessError> {
        self.child.kill().await.map_err(|error| self.failed(error))
    }

    /// Stops it in its tracks, as a long garbage collection would: SIGSTOP. Returns when all its threads have
    /// stopped.
    pub fn pause(&self) -> Result<(), ProcessError> {
        self.signal(Signal::SIGSTOP)?;
        until_stopped(self.pid);
        Ok(())
    }

    /// Lets it go on: SIGCONT.
    pub fn resume(&self) -> Result<(), ProcessError> {
        self.signal(Signal::SIGCONT)
    }

    /// Asks it to stop, SIGTERM, and waits for its end.
    pub async fn stop(mut self, within: Duration) -> Result<ExitStatus, ProcessError> {
        self.signal(Signal::SIGTERM)?;
        match timeout(within, self.child.wait()).await {
            Ok(status) => status.map_err(|error| self.failed(error)),
            Err(_) => Err(self.failed(format!("did not stop within {within:?}"))),
        }
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The file that its output goes to, with that of its lives before, where it was started again.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        // Its id may belong to another by now.
        if self.child.id().is_none() {
            return Err(self.failed("it has ended"));
        }
        kill(self.pid, signal).map_err(|error: Errno| self.failed(error))
    }

    /// Lets it open no file, and no connection, beyond those that it has; `false` lifts that.
    pub async fn limit_files(&self, limited: bool) -> Result<(), ProcessError> {
        let open = || std::fs::read_dir(format!("/proc/{}/fd", self.pid)).map(|open| open.count() as u64);
        let most = if limited { Some(open().map_err(|error| self.failed(error))?) } else { None };
        limit(self.id(), None, Limited::Files, most).await.map_err(|error| self.failed(error))
    }

    /// Limits the size of the files that the process, which runs as `user`, and those of its children write
    /// whose command lines begin with `children_of`; `None` lifts that.
    pub(crate) async fn limit_file_size(
        &self,
        bytes: Option<u64>,
        children_of: &str,
        user: Option<&User>,
    ) -> Result<(), ProcessError> {
        // Of its children, those that it makes from now on inherit its limit.
        limit(self.id(), user, Limited::FileSize, bytes).await.map_err(|error| self.failed(error))?;
        for child in children(self.pid) {
            let command = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            // One that has ended meanwhile writes nothing.
            if command.starts_with(children_of.as_bytes()) {
                limit(child.as_raw(), user, Limited::FileSize, bytes).await.ok();
            }
        }
        Ok(())
    }

    /// Stops the process and its children, whatever sessions those have made themselves. Returns when all
    /// have stopped.
    pub(crate) fn pause_family(&self) -> Result<(), ProcessError> {
        // One that is stopped makes no more children.
        self.pause()?;
        let children = children(self.pid);
        for child in &children {
            // One that has ended meanwhile needs no signal.
            kill(*child, Signal::SIGSTOP).ok();
        }
        children.into_iter().for_each(until_stopped);
        Ok(())
    }

    /// Lets the process and its children go on.
    pub(crate) fn resume_family(&self) -> Result<(), ProcessError> {
        for child in children(self.pid) {
            kill(child, Signal::SIGCONT).ok();
        }
        self.resume()
    }

    /// Ends the process and its children with SIGKILL, whether they are stopped or not. Returns who they
    /// were.
    pub(crate) fn kill_family(&self) -> Result<Vec<Pid>, ProcessError> {
        // A process that is stopped makes no more children; one that is dead has none that could be listed.
        self.pause()?;
        let children = children(self.pid);
        for child in &children {
            kill(*child, Signal::SIGKILL).ok();
        }
        self.signal(Signal::SIGKILL)?;
        Ok(children)
    }

    fn failed(&self, what: impl ToString) -> ProcessError {
        ProcessError::Signal { name: self.name.clone(), what: what.to_string() }
    }

    pub(crate) fn not_ready(&self, what: String) -> ProcessError {
        let (name, log, tail) = (self.name.clone(), self.log.clone(), self.log_tail());
        ProcessError::NotReady { name, what, log, tail }
    }
}

/// Copies an output to a log, line by line, and tells what follows `ready` on the first line that begins so.
/// The task ends with the output.
fn copy_and_find(
    output: impl tokio::io::AsyncRead + Unpin + Send + 'static,
    log: PathBuf,
    ready: String,
) -> (oneshot::Receiver<String>, JoinHandle<()>) {
    let (found, receiver) = oneshot::channel();
    let copied = tokio::spawn(async move {
        let mut found = Some(found);
        let mut lines = BufReader::new(output).lines();
        let mut log = tokio::fs::File::options().append(true).create(true).open(log).await.ok();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(rest) = line.strip_prefix(&ready)
                && let Some(found) = found.take()
            {
                drop(found.send(rest.to_owned()));
            }
            if let Some(log) = &mut log {
                // A log that cannot be written must not keep the process from its work.
                log.write_all(format!("{line}\n").as_bytes()).await.ok();
            }
        }
        if let Some(log) = &mut log {
            log.flush().await.ok();
        }
    });
    (receiver, copied)
}

/// Waits until none of these runs any more. No other wait is possible: their parent is
/// dead.
pub(crate) async fn until_gone(processes: &[Pid], within: Duration) -> bool {
    let give_up = Instant::now() + within;
    while processes.iter().any(|pid| is_running(*pid)) {
        if Instant::now() >= give_up {
            return false;
        }
        sleep(Duration::from_millis(1)).await;
    }
    true
}

/// Waits until a process to which SIGSTOP was sent has stopped, or has ended. The signal takes a moment: what
/// runs on another processor goes on until it comes.
fn until_stopped(pid: Pid) {
    let is_stopped = |state: Option<char>| state.is_none_or(|state| ['T', 't', 'Z', 'X'].contains(&state));
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    while !threads().all(|thread| is_stopped(state_in(&thread.path().join("stat")))) {
        std::thread::yield_now();
    }
}

fn is_running(pid: Pid) -> bool {
    // A zombie has ended; it waits for its new parent to notice.
    state(pid).is_some_and(|state| state != 'Z')
}

/// The state of a process, by the letter that Linux has for it; `None` when it is gone.
fn state(pid: Pid) -> Option<char> {
    state_in(Path::new(&format!("/proc/{pid}/stat")))
}

fn state_in(stat: &Path) -> Option<char> {
    let stat = std::fs::read_to_string(stat).ok()?;
    // The first field after the name, which is in parentheses and may have some in it.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The children of a process, as Linux lists them.
fn children(parent: Pid) -> Vec<Pid> {
    let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}
