//! A server, whichever it is.

use std::any::Any;
use std::fmt;
use std::io;

use async_trait::async_trait;

use crate::ServerError;

/// A server that was started here. It ends with the value, and its data with it.
///
/// What only one kind can do is called on its own type, which [`Servers::find`](crate::Servers::find) gives.
#[async_trait]
pub trait Server: Any + fmt::Debug + Send + Sync {
    /// Which kind it is.
    fn kind(&self) -> ServerKind;

    /// Where it listens for clients: host and port, of each of its processes that has clients.
    fn addresses(&self) -> Vec<String>;

    /// What its clients are configured with, to reach it at `addresses`: its own, or those of proxies before
    /// them.
    fn url_at(&self, addresses: &[String]) -> String;

    /// What its clients are configured with.
    fn url(&self) -> String {
        self.url_at(&self.addresses())
    }

    /// What of it is killed and paused, in words.
    fn struck(&self) -> String {
        self.kind().to_string()
    }

    /// Ends it at once, by SIGKILL; of several processes, the one that leads, or the next where none does.
    async fn kill(&mut self) -> Result<(), ServerError>;

    /// Starts again whatever of it does not run, at the same addresses; returns when it answers.
    async fn restart(&mut self) -> Result<(), ServerError>;

    /// Stops it, by SIGSTOP, with its connections open; of several processes, the one that leads, or the next
    /// where none does.
    async fn pause(&self) -> Result<(), ServerError>;

    /// Lets it go on, by SIGCONT. One that was not stopped is left alone.
    fn resume(&self) -> Result<(), ServerError>;

    /// Whether it can serve, as far as it depends on its processes' finding each other: of several, one has
    /// to lead.
    async fn is_led(&self) -> bool {
        true
    }

    /// Sets its time of day so many seconds ahead of the system's, or behind; `false` where it has no
    /// [clock of its own](Setup::is_breakable).
    fn set_clock(&self, _seconds_ahead: i64) -> io::Result<bool> {
        Ok(false)
    }
}

/// The kinds of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerKind {
    /// The database.
    Postgres,
    /// The cache.
    Redis,
    /// The coordination service.
    Zookeeper,
    /// The key-value store of clusters.
    Etcd,
}

impl ServerKind {
    /// Its place among all of them.
    pub fn number(self) -> usize {
        self as usize
    }
}

/// How a server is set up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Setup {
    /// Whether it has a clock of its own, where libfaketime is installed and it looks at the time of day;
    /// PostgreSQL also has a disk that can be full.
    pub is_breakable: bool,
    /// Whether it is several processes, as in production; where that exists.
    pub is_ensemble: bool,
    /// Whether the network between those can be broken. They then wait longer for each other, and take longer
    /// to replace one that leads.
    pub is_linked: bool,
    /// Which servers have another that takes over from them, by their kind's [number](ServerKind::number).
    pub takes_over: [bool; 4],
    /// How many Redis servers there are that know nothing of each other; one where it is less than that.
    pub redis_servers: usize,
}
