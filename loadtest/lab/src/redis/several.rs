//! Several Redis servers that know nothing of each other, of which a majority has a lock.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use super::Redis;
use crate::{Server, ServerError, ServerKind};

/// Redis servers on free ports, each with what it is told and nothing else. They are numbered from 0.
///
/// What strikes one of them strikes the next each time, from the first on.
#[derive(Debug)]
pub struct RedisServers {
    servers: Vec<Redis>,
    struck: AtomicUsize,
}

impl RedisServers {
    /// Makes so many fresh servers, and waits until all answer.
    pub async fn start(size: usize) -> Result<Self, ServerError> {
        Self::start_as(size, false).await
    }

    /// The same, each with a clock of its own, where libfaketime is installed.
    pub async fn start_breakable(size: usize) -> Result<Self, ServerError> {
        Self::start_as(size, true).await
    }

    async fn start_as(size: usize, has_clock: bool) -> Result<Self, ServerError> {
        let mut servers = Vec::new();
        for _ in 0..size {
            servers.push(Redis::start_as(None, has_clock, &[], None).await?);
        }
        Ok(Self { servers, struck: AtomicUsize::new(0) })
    }

    /// All of them.
    pub fn all(&self) -> &[Redis] {
        &self.servers
    }

    /// All of them, to be killed and started again.
    pub fn all_mut(&mut self) -> &mut [Redis] {
        &mut self.servers
    }

    /// The one that is struck next.
    pub fn next(&self) -> &Redis {
        &self.servers[self.strike()]
    }

    fn strike(&self) -> usize {
        self.struck.fetch_add(1, Ordering::Relaxed) % self.servers.len()
    }
}

#[async_trait]
impl Server for RedisServers {
    fn kind(&self) -> ServerKind {
        ServerKind::Redis
    }

    fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(Redis::address).collect()
    }

    fn url_at(&self, addresses: &[String]) -> String {
        let urls: Vec<_> = addresses.iter().map(|address| format!("redis://{address}")).collect();
        urls.join(",")
    }

    fn struck(&self) -> String {
        format!("one of {} redis", self.servers.len())
    }

    async fn kill(&mut self) -> Result<(), ServerError> {
        let next = self.strike();
        Ok(self.servers[next].kill().await?)
    }

    async fn restart(&mut self) -> Result<(), ServerError> {
        for server in &mut self.servers {
            Server::restart(server).await?;
        }
        Ok(())
    }

    async fn pause(&self) -> Result<(), ServerError> {
        Ok(self.next().pause()?)
    }

    fn resume(&self) -> Result<(), ServerError> {
        self.servers.iter().try_for_each(|server| Ok(server.resume()?))
    }

    /// Sets the clock of the first one, and leaves the others right.
    fn set_clock(&self, seconds_ahead: i64) -> io::Result<bool> {
        self.servers.first().map_or(Ok(false), |first| first.set_clock(seconds_ahead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_knows_what_it_was_told_and_one_is_struck_after_the_other() {
        let mut servers = RedisServers::start(3).await.expect("they start");
        for (number, server) in servers.all().iter().enumerate() {
            server.command(&["SET", "number", &number.to_string()]).await.expect("an answer");
        }
        for server in servers.addresses() {
            assert!(servers.url().contains(&format!("redis://{server}")), "{}", servers.url());
        }
        assert_eq!(servers.url().split(',').count(), 3);
        for killed in 0..3 {
            Server::kill(&mut servers).await.expect("one is killed");
            servers.restart().await.expect("it starts again");
            for (number, server) in servers.all().iter().enumerate() {
                let known = server.command(&["GET", "number"]).await.expect("an answer");
                let expected = if number <= killed { "(nil)".to_owned() } else { number.to_string() };
                assert_eq!(known, expected, "server {number}, when {killed} had been killed");
            }
        }
        servers.pause().await.expect("one is stopped");
        servers.resume().expect("it goes on");
        servers.all()[0].command(&["PING"]).await.expect("an answer");
    }
}
