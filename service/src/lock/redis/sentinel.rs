//! Redis Sentinel, as far as a client needs it: which server is the primary now.
//!
//! As Redis' "Guidelines for Redis clients with support for Redis Sentinel" ask for: the sentinels are asked
//! one after the other, the one that answered last comes first, and whoever connects to the primary makes
//! sure that it is one.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool_redis::redis::{self, AsyncConnectionConfig, Client, ConnectionInfo, RedisResult};
use tokio::time::timeout;

use super::explained::explained;
use super::protocol::other;

/// How long one sentinel has to answer.
const ANSWER: Duration = Duration::from_millis(500);

/// The sentinels that look after a primary.
pub(super) struct Sentinels {
    /// The primary's name.
    name: String,
    sentinels: Vec<ConnectionInfo>,
    /// Which of them is asked first.
    first: AtomicUsize,
}

impl Sentinels {
    pub(super) fn new(name: &str, sentinels: Vec<ConnectionInfo>) -> Self {
        Self { name: name.to_owned(), sentinels, first: AtomicUsize::new(0) }
    }

    /// Where the primary is, by the first sentinel that knows it: host and port.
    pub(super) async fn primary(&self) -> RedisResult<(String, u16)> {
        let first = self.first.load(Ordering::Relaxed);
        let mut errors = Vec::new();
        for number in (0..self.sentinels.len()).map(|offset| (first + offset) % self.sentinels.len()) {
            let sentinel = &self.sentinels[number];
            let error = match timeout(ANSWER, self.ask(sentinel)).await {
                Ok(Ok(Some(primary))) => {
                    self.first.store(number, Ordering::Relaxed);
                    return Ok(primary);
                }
                Ok(Ok(None)) => format!("it knows no primary {:?}", self.name),
                Ok(Err(error)) => explained(error, sentinel.addr()).to_string(),
                Err(_) => "no answer in time".into(),
            };
            errors.push(format!("{}: {error}", sentinel.addr()));
        }
        Err(other(format_args!("no sentinel names the primary: {}", errors.join("; "))))
    }

    async fn ask(&self, sentinel: &ConnectionInfo) -> RedisResult<Option<(String, u16)>> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let client = Client::open(sentinel.clone())?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name).query_async(&mut connection).await
    }
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the sentinels of {:?}", self.name)
    }
}
