//! A private Redis server.

mod cluster;
mod resp;
mod sentinels;
mod several;
mod tls;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

pub use cluster::RedisCluster;
pub use sentinels::RedisSentinels;
pub use several::RedisServers;
pub use tls::RedisTls;
use tls::tls_options;

use crate::clock::{Clock, run_by};
use crate::launch::{ServerError, free_ports, on_fresh_ports};
use crate::{Lab, Process, ProcessError, Server, ServerKind, TlsFiles};

/// How long the server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// The line of `INFO` that says that a replica has what its primary has.
const LINKED: &str = "master_link_status:up";

/// The command that installs the server.
pub(crate) const INSTALL_REDIS: &str = "apt-get install redis-server";

/// A Redis server on a free port. It keeps nothing on the disk: one that is killed has lost its data.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
    /// What it speaks TLS with, on a port of its own, where it does.
    tls: Option<(TlsFiles, u16)>,
    /// The port of the primary that it was started as a replica of.
    primary: Option<u16>,
    /// More arguments, which it is started with each time.
    options: Vec<String>,
    clock: Option<Clock>,
    lab: Lab,
}

impl Redis {
    /// Whether the server is installed.
    pub fn is_installed() -> bool {
        program().is_some()
    }

    /// Makes a fresh server and waits until it answers.
    pub async fn start() -> Result<Self, ServerError> {
        Self::start_as(None, false, &[], None).await
    }

    /// The same with a [clock of its own](Server::set_clock), where libfaketime is installed.
    pub async fn start_breakable() -> Result<Self, ServerError> {
        Self::start_as(None, true, &[], None).await
    }

    /// Makes a replica of `primary`, and waits until it has what the primary has and follows it.
    pub async fn start_replica_of(primary: &Redis) -> Result<Self, ServerError> {
        Self::start_as(Some(primary.port), false, &[], None).await
    }

    async fn start_as(
        primary: Option<u16>,
        has_clock: bool,
        options: &[String],
        tls: Option<&TlsFiles>,
    ) -> Result<Self, ServerError> {
        let lab = Lab::new().map_err(ServerError::prepare("a directory"))?;
        let clock = if has_clock { Clock::new(&lab).map_err(ServerError::prepare("a clock"))? } else { None };
        let serve_on_free_port = || async {
            let ports = free_ports(2)?;
            let tls = tls.map(|files| (files.clone(), ports[1]));
            let options = [options, &tls_options(tls.as_ref())].concat();
            let linked = primary.map(|_| LINKED);
            let process = serve(&lab, ports[0], primary, &options, clock.as_ref(), linked).await?;
            Ok((process, ports[0], tls, options))
        };
        let (process, port, tls, options) = on_fresh_ports(serve_on_free_port).await?;
        Ok(Self { process, port, tls, primary, options, clock, lab })
    }

    /// Where the server listens: host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Sends one command over a connection of its own and returns the reply as text: strings and numbers as
    /// they are, nothing as `(nil)`, the elements of an array one a line. A reply that is an error, or that
    /// is not there within ten seconds, is an error here.
    pub async fn command(&self, words: &[&str]) -> std::io::Result<String> {
        resp::call(self.port, words).await
    }

    /// Makes the server a replica of another, which has whatever that one has from then on.
    pub async fn demote(&self, primary: &Redis) -> std::io::Result<()> {
        self.command(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]).await.map(drop)
    }

    /// Makes a replica a primary, with the data that it has.
    pub async fn promote(&self) -> std::io::Result<()> {
        self.command(&["REPLICAOF", "NO", "ONE"]).await.map(drop)
    }

    /// Ends the server at once: SIGKILL.
    pub async fn kill(&mut self) -> Result<(), ProcessError> {
        self.process.kill().await
    }

    /// Stops the server in its tracks: SIGSTOP.
    pub fn pause(&self) -> Result<(), ProcessError> {
        self.process.pause()
    }

    /// Lets it go on: SIGCONT.
    pub fn resume(&self) -> Result<(), ProcessError> {
        self.process.resume()
    }

    /// The port by which other servers know it, which speak TLS to it where it does.
    fn known_port(&self) -> u16 {
        self.tls.as_ref().map_or(self.port, |(_, port)| *port)
    }

    /// What clients are configured with that are to speak TLS where it does.
    fn known_url(&self) -> String {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}", self.known_port())
    }

    /// Makes the server a replica of the one on `port` when it starts again.
    fn follow(&mut self, port: u16) {
        self.primary = Some(port);
    }

    /// Starts the server again that was killed, empty, on the same port. One that was started as a replica is
    /// a replica again, whether it was promoted or not; its primary need not be there.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        let (primary, clock) = (self.primary, self.clock.as_ref());
        self.process = serve(&self.lab, self.port, primary, &self.options, clock, None).await?;
        Ok(())
    }

    /// The server's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

#[async_trait]
impl Server for Redis {
    fn kind(&self) -> ServerKind {
        ServerKind::Redis
    }

    fn addresses(&self) -> Vec<String> {
        vec![self.address()]
    }

    fn url_at(&self, addresses: &[String]) -> String {
        format!("redis://{}", addresses[0])
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

/// Starts the server and waits until it answers, and until its `INFO` has the line `wanted`.
async fn serve(
    lab: &Lab,
    port: u16,
    primary: Option<u16>,
    options: &[String],
    clock: Option<&Clock>,
    wanted: Option<&str>,
) -> Result<Process, ServerError> {
    let missing = ServerError::NotInstalled { program: "redis-server", install: INSTALL_REDIS };
    let mut server = run_by(clock, None, &program().ok_or(missing)?);
    server.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    // A primary would wait five seconds for more replicas before it serves the first.
    server.args(["--repl-diskless-sync-delay", "0"]);
    if let Some(primary) = primary {
        server.args(["--replicaof", "127.0.0.1", &primary.to_string()]);
    }
    server.args(options).arg("--dir").arg(lab.path()).current_dir(lab.path());
    let is_ready = move |id| async move {
        let Ok(info) = resp::call(port, &["INFO"]).await else {
            return false;
        };
        let says = |wanted: &str| info.lines().any(|line| line == wanted);
        says(&format!("process_id:{id}")) && wanted.is_none_or(says)
    };
    let log = lab.file("redis.log");
    let process = Process::start_and_probe("Redis", server, log, START_TIMEOUT, is_ready).await?;
    clock.inspect(|clock| clock.note(&process));
    Ok(process)
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("redis-server")).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_taken_address_is_recognised_even_when_another_redis_answers_there() {
        let another = Redis::start().await.unwrap();
        let lab = Lab::new().unwrap();
        let error = serve(&lab, another.port, None, &[], None, None).await.unwrap_err();
        assert!(error.is_address_in_use(), "{error}");
    }

    #[tokio::test]
    async fn a_taken_address_is_recognised_when_nobody_answers_there() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let lab = Lab::new().unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = serve(&lab, port, None, &[], None, None).await.unwrap_err();
        assert!(error.is_address_in_use(), "{error}");
    }
}
