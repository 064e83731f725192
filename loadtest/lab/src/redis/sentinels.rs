//! A primary, its replica, and the sentinels that look after them.

use std::time::Duration;

use tokio::process::Command;

use super::{INSTALL_REDIS, Redis, START_TIMEOUT, program, resp};
use crate::launch::{ServerError, free_port, on_fresh_ports};
use crate::{Lab, Process, ProcessError};

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
    _lab: Lab,
}

impl RedisSentinels {
    /// Makes fresh servers, and waits until the sentinels, which know the primary by `name`, have found each
    /// other and the replica.
    pub async fn start(name: &str) -> Result<Self, ServerError> {
        let lab = Lab::new().map_err(ServerError::prepare("a directory"))?;
        let primary = Redis::start().await?;
        let replica = Redis::start_replica_of(&primary).await?;
        let mut sentinels = Vec::new();
        for number in 0..SENTINELS {
            let on_free_port = || async {
                let port = free_port()?;
                Ok((port, serve(&lab, number, port, name, &primary).await?))
            };
            sentinels.push(on_fresh_ports(on_free_port).await?);
        }
        let found = Self { name: name.to_owned(), servers: [primary, replica], sentinels, _lab: lab };
        found.until_found().await?;
        Ok(found)
    }

    /// What its clients are configured with: the addresses of the sentinels.
    pub fn url(&self) -> String {
        let urls: Vec<_> =
            self.sentinels.iter().map(|(port, _)| format!("redis://127.0.0.1:{port}")).collect();
        urls.join(",")
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
        let give_up = tokio::time::Instant::now() + START_TIMEOUT;
        for number in 0..SENTINELS {
            let (port, process) = &self.sentinels[number];
            loop {
                let known = resp::call(*port, &["SENTINEL", "MASTER", &self.name]).await.unwrap_or_default();
                let fields: Vec<_> = known.lines().collect();
                let has = |name, value| fields.chunks(2).any(|field| *field == [name, value]);
                if has("num-slaves", "1") && has("num-other-sentinels", "2") {
                    break;
                }
                if tokio::time::Instant::now() >= give_up {
                    return Err(process.not_ready(format!("has not found the others: {known}")).into());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}

async fn serve(
    lab: &Lab,
    number: usize,
    port: u16,
    name: &str,
    primary: &Redis,
) -> Result<Process, ServerError> {
    let missing = ServerError::NotInstalled { program: "redis-server", install: INSTALL_REDIS };
    let file = lab.file(&format!("sentinel-{number}.conf"));
    let config = format!(
        "port {port}\nbind 127.0.0.1\ndir {directory}\n\
         sentinel monitor {name} 127.0.0.1 {primary} 2\n\
         sentinel down-after-milliseconds {name} {down_after}\n\
         sentinel failover-timeout {name} 3000\n",
        directory = lab.path().display(),
        primary = primary.port,
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
