//! A private PostgreSQL server, a standby of it, and one that insists on TLS.

mod pair;
mod tls;

use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use nix::unistd::{Uid, User};
use tokio::process::Command;

use crate::clock::{Clock, run_by};
use crate::launch::{ServerError, free_port, on_fresh_ports};
use crate::process::until_gone;
use crate::user::as_user;
use crate::{Lab, Process, ProcessError, Server, ServerKind};

pub use pair::PostgresPair;
pub use tls::PostgresTls;

/// How long the server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The unprivileged user whom root lets the server run as: PostgreSQL refuses to run as root.
pub(crate) const SERVER_USER: &str = "postgres";

/// A PostgreSQL server on a free port, with its data in a directory of its own; fsync is on, as in
/// production.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    port: u16,
    clock: Option<Clock>,
    lab: Lab,
}

/// The database that every server has.
const DATABASE: &str = "postgres";

/// How large the files of the log are of a server that is made to be broken: a file of that size must fit on
/// a disk that is full for all that is larger.
const SEGMENT: u64 = 1024 * 1024;

/// The command that installs the server.
pub(crate) const INSTALL_POSTGRES: &str = "apt-get install postgresql";

impl Postgres {
    /// Whether the server is installed.
    pub fn is_installed() -> bool {
        binaries().is_some()
    }

    /// Makes a fresh server and waits until it answers.
    pub async fn start() -> Result<Self, ServerError> {
        Self::start_with(&[], false).await
    }

    /// The same with a [clock of its own](Server::set_clock), where libfaketime is installed, and a
    /// [disk that can be full](Self::fill_disk).
    pub async fn start_breakable() -> Result<Self, ServerError> {
        Self::start_with(&["--wal-segsize=1"], true).await
    }

    /// The same that lets the role `shop` in over TLS only, with the password of
    /// [`tls_url`](Self::tls_url).
    pub async fn start_with_tls(tls: &PostgresTls) -> Result<Self, ServerError> {
        let lab = initialise(&[]).await?;
        let data = lab.file("data");
        tls.install(&data, server_user().as_ref()).map_err(ServerError::prepare("certificates"))?;
        let server = Self::serve_fresh(lab, None).await?;
        let role = format!(
            "create role {} login password '{}'; grant all on database {DATABASE} to {0}; \
             grant all on schema public to {0}",
            tls::ROLE,
            tls::PASSWORD
        );
        server.query(&role).await.map_err(ServerError::prepare("a role"))?;
        Ok(server)
    }

    /// Where the role `shop` comes in, at the server's name `host`, with these parameters of the URL.
    pub fn tls_url(&self, host: &str, parameters: &str) -> String {
        let password = tls::PASSWORD.replace(' ', "%20");
        format!("postgres://{}:{password}@{host}:{}/{DATABASE}?{parameters}", tls::ROLE, self.port)
    }

    /// Makes a standby that follows this server by streaming replication, and waits until it can be read.
    pub async fn standby(&self) -> Result<Self, ServerError> {
        self.standby_at(None).await
    }

    /// The same on a port, if one is given.
    async fn standby_at(&self, port: Option<u16>) -> Result<Self, ServerError> {
        let missing = ServerError::NotInstalled { program: "postgres", install: INSTALL_POSTGRES };
        let binaries = binaries().ok_or(missing)?;
        let lab = directory()?;
        let mut copy = as_user(server_user().as_ref(), &binaries.join("pg_basebackup"));
        copy.arg("--pgdata").arg(lab.file("data")).args(["--write-recovery-conf", "--checkpoint=fast"]);
        copy.args(["--host=127.0.0.1", "--username=stocklock", &format!("--port={}", self.port)]);
        run(copy.current_dir(lab.path()), "pg_basebackup").await?;
        match port {
            Some(port) => Ok(Self { process: serve(&lab, port, None).await?, port, clock: None, lab }),
            None => Self::serve_fresh(lab, None).await,
        }
    }

    /// Makes a standby the primary, and waits until it is.
    pub async fn promote(&self) -> std::io::Result<()> {
        self.query("select pg_promote()").await.map(drop)
    }

    async fn start_with(options: &[&str], has_clock: bool) -> Result<Self, ServerError> {
        let lab = initialise(options).await?;
        let clock = if has_clock { Clock::new(&lab).map_err(ServerError::prepare("a clock"))? } else { None };
        Self::serve_fresh(lab, clock).await
    }

    async fn serve_fresh(lab: Lab, clock: Option<Clock>) -> Result<Self, ServerError> {
        let serve_on_free_port = || async {
            let port = free_port()?;
            Ok((serve(&lab, port, clock.as_ref()).await?, port))
        };
        let (process, port) = on_fresh_ports(serve_on_free_port).await?;
        Ok(Self { process, port, clock, lab })
    }

    /// Lets the disk of a server that was started breakable be full, as far as its clients' connections are
    /// concerned: no table or index of a mebibyte can grow. `false` makes room. [`refusals`](Self::refusals)
    /// tells whether anybody noticed.
    pub async fn fill_disk(&self, full: bool) -> Result<(), ProcessError> {
        let (user, limit) = (server_user(), full.then_some(SEGMENT));
        self.process.limit_file_size(limit, "postgres: stocklock ", user.as_ref()).await
    }

    /// How often the server's log says that something could not grow for want of room.
    pub fn refusals(&self) -> usize {
        let log = std::fs::read_to_string(self.process.log()).unwrap_or_default();
        log.matches("could not extend file").count()
    }

    /// Ends the connections of all clients, one after the other, as an administrator does.
    pub async fn terminate_backends(&self) -> std::io::Result<()> {
        let one_by_one = "DO $$ DECLARE backend int; BEGIN \
             FOR backend IN SELECT pid FROM pg_stat_activity \
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() LOOP \
             PERFORM pg_terminate_backend(backend); PERFORM pg_sleep(0.01); END LOOP; END $$";
        self.query(one_by_one).await.map(drop)
    }

    /// Runs statements in the database `postgres` and returns the rows of the last one as text: a line for
    /// each, with `|` between the columns.
    pub async fn query(&self, statements: &str) -> std::io::Result<String> {
        let binaries = binaries().ok_or(std::io::ErrorKind::NotFound)?;
        let mut psql = Command::new(binaries.join("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"]);
        psql.args(["--dbname", &self.url(), "--command", statements]).stdin(Stdio::null());
        // Whoever does not wait for the answer any more ends the question.
        psql.kill_on_drop(true);
        let output = psql.output().await?;
        if !output.status.success() {
            return Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Ends the server at once, with all its connections: SIGKILL.
    pub async fn kill(&mut self) -> Result<(), ProcessError> {
        let connections = self.process.kill_family()?;
        self.process.kill().await?;
        // Until the last is gone, a new server would find the old one's memory in use.
        if until_gone(&connections, START_TIMEOUT).await {
            return Ok(());
        }
        Err(ProcessError::Signal { name: "PostgreSQL".into(), what: "its connections do not end".into() })
    }

    /// Stops the server and all its connections in their tracks: SIGSTOP.
    pub fn pause(&self) -> Result<(), ProcessError> {
        self.process.pause_family()
    }

    /// Lets them go on: SIGCONT.
    pub fn resume(&self) -> Result<(), ProcessError> {
        self.process.resume_family()
    }

    /// Starts the server again that was killed, on the same data and port.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        self.process = serve(&self.lab, self.port, self.clock.as_ref()).await?;
        Ok(())
    }

    /// The address of a database on this server, other than `postgres`, which is always there.
    pub fn url_of(&self, database: &str) -> String {
        url(&self.address(), database)
    }

    /// Where the server listens: host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The server's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

#[async_trait]
impl Server for Postgres {
    fn kind(&self) -> ServerKind {
        ServerKind::Postgres
    }

    fn addresses(&self) -> Vec<String> {
        vec![self.address()]
    }

    fn url_at(&self, addresses: &[String]) -> String {
        url(&addresses[0], DATABASE)
    }

    async fn kill(&mut self) -> Result<(), ServerError> {
        Ok(self.kill().await?)
    }

    async fn restart(&mut self) -> Result<(), ServerError> {
        match self.process().exited() {
            Some(_) => self.restart().await,
            None => Ok(()),
        }
    }

    async fn pause(&self) -> Result<(), ServerError> {
        Ok(self.pause()?)
    }

    fn resume(&self) -> Result<(), ServerError> {
        Ok(self.resume()?)
    }

    fn set_clock(&self, seconds_ahead: i64) -> io::Result<bool> {
        self.clock.as_ref().map(|clock| clock.set(seconds_ahead)).transpose().map(|set| set.is_some())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Connections end by themselves when the server is gone, but not those that are paused. One that has
        // been killed has none.
        self.process.kill_family().ok();
    }
}

fn url(address: &str, database: &str) -> String {
    format!("postgres://stocklock@{address}/{database}")
}

/// Makes a directory with a server's data in it.
async fn initialise(options: &[&str]) -> Result<Lab, ServerError> {
    let missing = ServerError::NotInstalled { program: "postgres", install: INSTALL_POSTGRES };
    let binaries = binaries().ok_or(missing)?;
    let lab = directory()?;
    let mut initdb = as_user(server_user().as_ref(), &binaries.join("initdb"));
    initdb.arg("--pgdata").arg(lab.file("data")).args(["--username", "stocklock", "--auth", "trust"]);
    initdb.args(["--encoding", "UTF8", "--no-locale", "--no-sync"]).args(options);
    run(initdb.current_dir(lab.path()), "initdb").await?;
    Ok(lab)
}

/// An empty directory that is the server's.
fn directory() -> Result<Lab, ServerError> {
    let lab = Lab::new().map_err(ServerError::prepare("a directory"))?;
    if let Some(user) = server_user() {
        chown(lab.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .map_err(ServerError::prepare("the directory's owner"))?;
    }
    Ok(lab)
}

/// Runs what makes a server's data to its end.
async fn run(command: &mut Command, name: &str) -> Result<(), ServerError> {
    // Whoever does not wait for it any more removes the directory.
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(ServerError::prepare(name))?;
    if output.status.success() {
        return Ok(());
    }
    Err(ServerError::Init(format!("{name}: {}", String::from_utf8_lossy(&output.stderr))))
}

/// Starts the server on data that is there, and waits until it answers.
async fn serve(lab: &Lab, port: u16, clock: Option<&Clock>) -> Result<Process, ServerError> {
    let missing = ServerError::NotInstalled { program: "postgres", install: INSTALL_POSTGRES };
    let binaries = binaries().ok_or(missing)?;
    let port = port.to_string();
    let mut server = run_by(clock, server_user().as_ref(), &binaries.join("postgres"));
    server.arg("-D").arg(lab.file("data")).args(["-p", &port]).current_dir(lab.path());
    for setting in [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        // The comparison of four locks has sixteen replicas at once, of up to 28 connections each.
        "max_connections=500",
        // In the directory, where nothing is left behind.
        "dynamic_shared_memory_type=mmap",
        "logging_collector=off",
    ] {
        server.args(["-c", setting]);
    }
    let is_ready = |id| {
        let mut probe = Command::new(binaries.join("pg_isready"));
        probe.args(["-q", "-h", "127.0.0.1", "-p", &port]).stdin(Stdio::null());
        async move {
            let answers = async { probe.status().await.is_ok_and(|status| status.success()) };
            has_announced_itself(lab, id) && answers.await
        }
    };
    let log = lab.file("postgres.log");
    let process = Process::start_and_probe("PostgreSQL", server, log, START_TIMEOUT, is_ready).await?;
    clock.inspect(|clock| clock.note(&process));
    Ok(process)
}

/// Whether the file that the server keeps about itself says that it is ready, and is not one that an earlier
/// server left behind: the id comes first, the status last.
fn has_announced_itself(lab: &Lab, id: i32) -> bool {
    let file = std::fs::read_to_string(lab.file("data").join("postmaster.pid")).unwrap_or_default();
    let mut lines = file.lines().map(str::trim);
    let is_it = lines.next() == Some(&id.to_string());
    is_it && matches!(lines.next_back(), Some("ready" | "standby"))
}

/// Whom to run the server as; `None`: as who we are.
fn server_user() -> Option<User> {
    if !Uid::effective().is_root() {
        return None;
    }
    User::from_name(SERVER_USER).ok().flatten()
}

/// Where the server's programs are: where Debian puts the newest version, or on the path.
fn binaries() -> Option<PathBuf> {
    let has_server =
        |directory: &PathBuf| directory.join("postgres").is_file() && directory.join("initdb").is_file();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<_> = versions.map(|version| version.path().join("bin")).filter(has_server).collect();
    debian.sort_by_key(|bin| {
        let version = bin.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        version.and_then(|version| version.parse::<u32>().ok())
    });
    let on_path = || std::env::split_paths(&std::env::var_os("PATH")?).find(has_server);
    debian.pop().or_else(on_path)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_taken_address_is_recognised() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let lab = initialise(&[]).await.unwrap();
        let error = serve(&lab, taken.local_addr().unwrap().port(), None).await.unwrap_err();
        assert!(error.is_address_in_use(), "{error}");
    }
}
