//! A primary, its replica, and the sentinels that look after them.

use std::time::Duration;

use async_trait::async_trait;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::tls::tls_lines;
use super::{INSTALL_REDIS, Redis, START_TIMEOUT, program, resp};
use crate::launch::{ServerError, free_ports, on_fresh_ports};
use crate::{Lab, Process, ProcessError, Server, ServerKind, TlsFiles};

/// How many sentinels there are, of which a majority decides.
const SENTINELS: usize = 3;

/// How long the primary has to be silent before a sentinel takes it for gone.
const DOWN_AFTER: Duration = Duration::from_millis(500);

/// A Redis primary with a replica, and three sentinels that make the replica the primary when that is gone.
#[derive(Debug)]
pub struct RedisSentinels {
    name: String,
    servers: [Redis; 2],
    sentinels: Vec<(u16, Process)>,
    /// The port of each for clients that speak TLS, where they do.
    tls_ports: Option<Vec<u16>>,
    _lab: Lab,
}

impl RedisSentinels {
    /// Makes fresh servers, and waits until the sentinels, which know the primary by `name`, have found each
    /// other and the replica.
    pub async fn start(name: &str) -> Result<Self, ServerError> {
        Self::start_with(name, None).await
    }

    /// The same with TLS between all of them, and for clients that speak it. The certificate is for
    /// 127.0.0.1.
    pub async fn start_with_tls(name: &str, files: &TlsFiles) -> Result<Self, ServerError> {
        Self::start_with(name, Some(files)).await
    }

    async fn start_with(name: &str, tls: Option<&TlsFiles>) -> Result<Self, ServerError> {
        let lab = Lab::new().map_err(ServerError::prepare("a directory"))?;
        let primary = Redis::start_as(None, false, &[], tls).await?;
        let replica = Redis::start_as(Some(primary.known_port()), false, &[], tls).await?;
        let (mut sentinels, mut tls_ports) = (Vec::new(), Vec::new());
        for number in 0..SENTINELS {
            let on_free_port = || async {
                let ports = free_ports(2)?;
                let tls = tls.map(|files| (files.clone(), ports[1]));
                let sentinel = serve(&lab, number, ports[0], tls.as_ref(), name, &primary).await?;
                Ok(((ports[0], sentinel), ports[1]))
            };
            let (sentinel, tls_port) = on_fresh_ports(on_free_port).await?;
            sentinels.push(sentinel);
            tls_ports.push(tls_port);
        }
        let tls_ports = tls.map(|_| tls_ports);
        let servers = [primary, replica];
        let found = Self { name: name.to_owned(), servers, sentinels, tls_ports, _lab: lab };
        found.until_found().await?;
        Ok(found)
    }

    /// What its clients are configured with: the addresses of the sentinels.
    pub fn url(&self) -> String {
        let Some(ports) = &self.tls_ports else { return Server::url(self) };
        let urls: Vec<_> = ports.iter().map(|port| format!("rediss://127.0.0.1:{port}")).collect();
        urls.join(",")
    }

    /// What the sentinels call the primary.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which of the servers a majority of the sentinels takes for the primary, if they agree and it takes
    /// writes.
    async fn primary(&self) -> Option<usize> {
        let mut votes = [0; 2];
        for (port, _) in &self.sentinels {
            let named = resp::call(*port, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &self.name]).await.ok()?;
            let port = named.lines().nth(1)?.parse::<u16>().ok()?;
            votes[self.servers.iter().position(|server| server.known_port() == port)?] += 1;
        }
        let primary = votes.iter().position(|votes| *votes > SENTINELS / 2)?;
        let role = self.servers[primary].command(&["ROLE"]).await.ok()?;
        (role.lines().next() == Some("master")).then_some(primary)
    }

    /// Waits until there is a primary other than `before`.
    async fn until_led(&self, before: Option<usize>) -> Result<usize, ServerError> {
        let give_up = Instant::now() + START_TIMEOUT;
        loop {
            match self.primary().await.filter(|primary| Some(*primary) != before) {
                Some(primary) => return Ok(primary),
                None if Instant::now() < give_up => sleep(Duration::from_millis(20)).await,
                None => return Err(self.sentinels[0].1.not_ready("names no primary".into()).into()),
            }
        }
    }

    /// The servers: the first is the primary at the start, the second its replica.
    pub fn servers(&mut self) -> &mut [Redis; 2] {
        &mut self.servers
    }

    /// Ends one of the sentinels: SIGKILL.
    pub async fn kill_sentinel(&mut self, number: usize) -> Result<(), ProcessError> {
        self.sentinels[number].1.kill().await
    }

    /// Sends a command to one of the sentinels, as [`Redis::command`] does.
    pub async fn command(&self, number: usize, words: &[&str]) -> std::io::Result<String> {
        resp::call(self.sentinels[number].0, words).await
    }

    async fn until_found(&self) -> Result<(), ServerError> {
        let give_up = Instant::now() + START_TIMEOUT;
        for number in 0..SENTINELS {
            let (port, process) = &self.sentinels[number];
            loop {
                let known = resp::call(*port, &["SENTINEL", "MASTER", &self.name]).await.unwrap_or_default();
                let fields: Vec<_> = known.lines().collect();
                let has = |name, value| fields.chunks(2).any(|field| *field == [name, value]);
                if has("num-slaves", "1") && has("num-other-sentinels", "2") {
                    break;
                }
                if Instant::now() >= give_up {
                    return Err(process.not_ready(format!("has not found the others: {known}")).into());
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Server for RedisSentinels {
    fn kind(&self) -> ServerKind {
        ServerKind::Redis
    }

    /// Those of the sentinels, which know where the servers are.
    fn addresses(&self) -> Vec<String> {
        self.sentinels.iter().map(|(port, _)| format!("127.0.0.1:{port}")).collect()
    }

    fn url_at(&self, addresses: &[String]) -> String {
        let urls: Vec<_> = addresses.iter().map(|address| format!("redis://{address}")).collect();
        urls.join(",")
    }

    fn struck(&self) -> String {
        "the primary of redis".into()
    }

    /// Kills the primary, and waits until the sentinels have made the replica one.
    async fn kill(&mut self) -> Result<(), ServerError> {
        let primary = self.until_led(None).await?;
        self.servers[primary].kill().await?;
        self.until_led(Some(primary)).await.map(drop)
    }

    /// Starts what does not run; the sentinels make it a replica of the other.
    async fn restart(&mut self) -> Result<(), ServerError> {
        let primary = self.until_led(None).await?;
        let other = 1 - primary;
        if self.servers[other].process().exited().is_none() {
            return Ok(());
        }
        let port = self.servers[primary].known_port();
        self.servers[other].follow(port);
        self.servers[other].restart().await
    }

    async fn pause(&self) -> Result<(), ServerError> {
        let primary = self.until_led(None).await?;
        Ok(self.servers[primary].pause()?)
    }

    fn resume(&self) -> Result<(), ServerError> {
        self.servers.iter().try_for_each(|server| Ok(server.resume()?))
    }

    async fn is_led(&self) -> bool {
        self.primary().await.is_some()
    }
}

async fn serve(
    lab: &Lab,
    number: usize,
    port: u16,
    tls: Option<&(TlsFiles, u16)>,
    name: &str,
    primary: &Redis,
) -> Result<Process, ServerError> {
    let missing = ServerError::NotInstalled { program: "redis-server", install: INSTALL_REDIS };
    let file = lab.file(&format!("sentinel-{number}.conf"));
    let config = format!(
        "port {port}\nbind 127.0.0.1\ndir {directory}\n{tls}\
         sentinel monitor {name} 127.0.0.1 {primary} 2\n\
         sentinel down-after-milliseconds {name} {down_after}\n\
         sentinel failover-timeout {name} 3000\n",
        directory = lab.path().display(),
        tls = tls_lines(tls),
        primary = primary.known_port(),
        down_after = DOWN_AFTER.as_millis(),
    );
    std::fs::write(&file, config).map_err(ServerError::prepare("a sentinel's configuration"))?;
    let mut sentinel = Command::new(program().ok_or(missing)?);
    sentinel.arg(&file).arg("--sentinel").current_dir(lab.path());
    let is_ready = move |id| async move {
        let info = resp::call(port, &["INFO", "server"]).await.unwrap_or_default();
        info.lines().any(|line| line == format!("process_id:{id}"))
    };
    let log = lab.file(&format!("sentinel-{number}.log"));
    Ok(Process::start_and_probe("Redis Sentinel", sentinel, log, START_TIMEOUT, is_ready).await?)
}
