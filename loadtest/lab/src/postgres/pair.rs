//! A primary and its standby, of which the standby takes over when the primary is killed.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::{DATABASE, Postgres, url};
use crate::launch::ServerError;
use crate::{Server, ServerKind};

/// How long the standby may take to follow the primary, and to take over.
const PATIENCE: Duration = Duration::from_secs(60);

/// A PostgreSQL server and its standby. A commit is on both before it is confirmed, as long as both are
/// there.
#[derive(Debug)]
pub struct PostgresPair {
    servers: [Postgres; 2],
    /// Which of them takes writes.
    primary: usize,
}

impl PostgresPair {
    /// Makes a fresh server and its standby, and waits until the one follows the other.
    pub async fn start() -> Result<Self, ServerError> {
        let primary = Postgres::start().await?;
        let standby = primary.standby().await?;
        let pair = Self { servers: [primary, standby], primary: 0 };
        pair.rely_on_both().await.map_err(ServerError::prepare("the replication"))?;
        Ok(pair)
    }

    /// The one that takes writes.
    pub fn primary(&self) -> &Postgres {
        &self.servers[self.primary]
    }

    /// Has commits wait for the standby, once it follows.
    async fn rely_on_both(&self) -> io::Result<()> {
        let give_up = Instant::now() + PATIENCE;
        while self
            .primary()
            .query("select count(*) from pg_stat_replication where state = 'streaming'")
            .await?
            != "1"
        {
            if Instant::now() >= give_up {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the standby does not follow"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        self.wait_for("*", self.primary).await
    }

    /// Which standbys the commits of a server wait for.
    async fn wait_for(&self, standbys: &str, server: usize) -> io::Result<()> {
        let server = &self.servers[server];
        server.query(&format!("alter system set synchronous_standby_names = '{standbys}'")).await?;
        server.query("select pg_reload_conf()").await.map(drop)
    }
}

#[async_trait]
impl Server for PostgresPair {
    fn kind(&self) -> ServerKind {
        ServerKind::Postgres
    }

    fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(Postgres::address).collect()
    }

    fn url_at(&self, addresses: &[String]) -> String {
        url(&addresses.join(","), DATABASE)
    }

    fn struck(&self) -> String {
        "the primary of postgres".into()
    }

    /// Kills the primary, and promotes the standby.
    async fn kill(&mut self) -> Result<(), ServerError> {
        self.servers[self.primary].kill().await?;
        let next = 1 - self.primary;
        // Or its commits would wait for a standby that it does not have.
        self.wait_for("", next).await.map_err(ServerError::prepare("the standby"))?;
        self.servers[next].promote().await.map_err(ServerError::prepare("the promotion"))?;
        self.primary = next;
        Ok(())
    }

    /// Makes whichever does not run a standby of the other, from nothing.
    async fn restart(&mut self) -> Result<(), ServerError> {
        let other = 1 - self.primary;
        if self.servers[other].process().exited().is_none() {
            return Ok(());
        }
        let port = self.servers[other].port;
        self.servers[other] = self.primary().standby_at(Some(port)).await?;
        self.rely_on_both().await.map_err(ServerError::prepare("the replication"))
    }

    async fn pause(&self) -> Result<(), ServerError> {
        Ok(self.primary().pause()?)
    }

    fn resume(&self) -> Result<(), ServerError> {
        Ok(self.primary().resume()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_committed_is_there_after_each_fail_over() {
        let mut pair = PostgresPair::start().await.expect("they start");
        let url = pair.url();
        pair.primary().query("create table kept (number int)").await.expect("it is made");
        for number in 1..=3 {
            pair.primary().query(&format!("insert into kept values ({number})")).await.expect("it is kept");
            Server::kill(&mut pair).await.expect("the primary is killed");
            let kept = pair.primary().query("select count(*) from kept").await.expect("an answer");
            assert_eq!(kept, number.to_string());
            Server::restart(&mut pair).await.expect("there is a standby again");
            assert_eq!(pair.url(), url);
        }
    }
}
