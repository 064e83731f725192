//! How the service is reached, and by whom.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secrets::{self, Secret};
use super::{ConfigError, is_loopback};

/// How the service is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSection {
    /// The address to listen on; port 0 picks a free one, which is printed.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// The name of this replica, kept with every order; "HOSTNAME-PID" when empty.
    pub replica: String,
    /// The longest time from an order's arrival to its answer; also how long a stop waits for requests in
    /// flight.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub request_timeout: Duration,
    /// How long a replica that is signalled to stop goes on taking requests while /readyz says that it is
    /// stopping, so that a balancer turns to the others before connections end.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub drain: Duration,
    /// The most connections at the same time, of which the longest idle one is closed for the next. No more
    /// than there are file handles for, but for those of the store and the lock; at the start, the process
    /// asks for as many as it may have.
    pub max_connections: usize,
    /// How long a connection is kept that sends no request; longer than a balancer keeps its own.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub keep_alive: Duration,
    /// How long the head of a request may take, from its first byte.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub head_timeout: Duration,
    /// How long a client may take to read an answer.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub write_timeout: Duration,
    /// The bearer token with which orders are listed and cancelled, other people's too; at least 32 bytes,
    /// as `openssl rand -hex 32` makes them. The admin token does as well. When there is none, these calls
    /// are open to everybody where server.listen is a loopback address, and forbidden elsewhere; behind a
    /// proxy on the same machine, set one.
    pub token: Secret,
    /// A file that has the token, instead of server.token, which it outranks; a newline at its end is not
    /// part of it.
    pub token_file: Option<PathBuf>,
    /// How many requests per second one client may send, by its address (of IPv6, its /64 network); what
    /// comes beyond is answered with 429. When unset, as many as it likes. Behind a proxy all requests have
    /// the proxy's address, so set the limit there. /livez and /readyz are not counted.
    pub rate_limit: Option<u32>,
    /// How many requests a client that was quiet may send at once, where there is a server.rate_limit; a
    /// second's worth when unset.
    pub rate_burst: Option<u32>,
    /// How many reads of a stock under its lock (read=locked) may be under way at once; more are answered
    /// with 503.
    pub locked_reads: usize,
    /// How many threads serve; when unset, half as many as there are processors, rounded up: the other half
    /// is for the kernel's part and for the servers that the orders wait for, and each thread has less to
    /// share.
    pub worker_threads: Option<usize>,
}

impl Default for ServerSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            replica: String::new(),
            request_timeout: Duration::from_secs(5),
            drain: Duration::ZERO,
            max_connections: 4096,
            keep_alive: Duration::from_secs(75),
            head_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(20),
            token: Secret::default(),
            token_file: None,
            rate_limit: None,
            rate_burst: None,
            locked_reads: 128,
            worker_threads: None,
        }
    }
}

impl ServerSection {
    /// Whether everybody may list and cancel orders: there is no token, and nobody comes from elsewhere.
    pub fn is_open(&self) -> bool {
        self.token.is_empty() && is_loopback(self.listen)
    }

    /// Requests per second and requests at once of one client, where they are limited.
    pub fn rate(&self) -> Option<(u32, u32)> {
        self.rate_limit.map(|rate| (rate, self.rate_burst.unwrap_or(rate)))
    }

    pub(super) fn read_token(&mut self) -> Result<(), ConfigError> {
        secrets::read_token("server.token_file", self.token_file.as_deref(), &mut self.token)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key: &str, why: &str| Err(ConfigError::new(key, why));
        if self.replica.len() > 200 || self.replica.chars().any(char::is_control) {
            return refuse("server.replica", "must have at most 200 bytes and no control characters");
        }
        if !(1..=1_000_000).contains(&self.max_connections) {
            return refuse("server.max_connections", "must be from 1 to 1000000");
        }
        if self.worker_threads.is_some_and(|threads| !(1..=1_024).contains(&threads)) {
            return refuse("server.worker_threads", "must be from 1 to 1024");
        }
        if !(1..=1_000_000).contains(&self.locked_reads) {
            return refuse("server.locked_reads", "must be from 1 to 1000000");
        }
        for (key, rate) in [("server.rate_limit", self.rate_limit), ("server.rate_burst", self.rate_burst)] {
            if rate.is_some_and(|rate| !(1..=1_000_000).contains(&rate)) {
                return refuse(key, "must be from 1 to 1000000");
            }
        }
        if self.rate_burst.is_some() && self.rate_limit.is_none() {
            return refuse("server.rate_burst", "is of no use without server.rate_limit");
        }
        self.token.check("server.token")
    }
}
