//! One Redis server: the connections to it, and what every lock asks of a server alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_redis::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use deadpool_redis::redis::{
    self, Client, ConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisResult, Value,
};
use deadpool_redis::{Manager, Pool, Runtime};
use prometheus_client::metrics::counter::Counter;
use uuid::Uuid;

/// The name of a part of a lock. The braces keep all parts on one node of a cluster.
macro_rules! key_of {
    ($key:expr, $part:expr) => {
        format_args!("stocklock:{{{}}}:{}", $key, $part)
    };
}
pub(super) use key_of;

/// The channel on which releases are published.
pub(super) const CHANNEL: &str = "stocklock:released";

/// How long one command may take.
pub(super) const COMMAND: Duration = Duration::from_secs(2);

/// A server that is connected to, and connected to again whenever the connection has ended.
pub(super) struct RedisServer {
    /// For the lock, and for its messages.
    connection: ConnectionManager,
    /// For everything else, so that it never waits behind the lock.
    pool: Pool,
    /// How often the connection was interrupted, after which there may be another server.
    interruptions: Arc<AtomicU64>,
    round_trips: Counter,
}

/// What a server says on its own.
pub(super) enum Announcement<'a> {
    /// That a lock has been released.
    Released(&'a str),
    /// That others may have been missed.
    Interrupted,
}

/// Who has a lock on a server and who waits for it, by their owners.
#[derive(Debug, Default)]
pub(super) struct ServerState {
    /// The writer: its owner, its replica and its token.
    pub(super) writer: Option<(String, Option<String>, i64)>,
    pub(super) readers: Vec<String>,
    pub(super) waiting: Vec<String>,
}

impl RedisServer {
    /// Connections to a server, which need not be there: they are made when they are used, and a request
    /// waits for so many more attempts to connect. `announced` is told what the server says.
    pub(super) fn new(
        info: ConnectionInfo,
        retries: usize,
        round_trips: Counter,
        announced: impl Fn(Announcement<'_>) + Send + Sync + 'static,
    ) -> RedisResult<Self> {
        let interruptions = Arc::<AtomicU64>::default();
        let interrupted = Arc::clone(&interruptions);
        let mut pool = Pool::builder(Manager::new(info.clone())?).max_size(2).runtime(Runtime::Tokio1);
        pool = pool.wait_timeout(Some(COMMAND)).create_timeout(Some(COMMAND)).recycle_timeout(Some(COMMAND));
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        // A server that vanishes without a word is given up when it has acknowledged nothing for so long.
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(COMMAND * 2);
        let client = Client::open(info.set_redis_settings(settings).set_tcp_settings(tcp))?;
        let manager = ConnectionManagerConfig::new()
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    interrupted.fetch_add(1, Ordering::AcqRel);
                }
                match (&push.kind, push.data.as_slice()) {
                    (PushKind::Message, [_, Value::BulkString(text)]) => {
                        announced(Announcement::Released(&String::from_utf8_lossy(text)));
                    }
                    // In an interruption, one may have been missed.
                    (PushKind::Message | PushKind::Subscribe | PushKind::Disconnection, _) => {
                        announced(Announcement::Interrupted);
                    }
                    _ => {}
                }
                Ok::<(), ()>(())
            })
            .set_automatic_resubscription()
            .set_number_of_retries(retries)
            .set_max_delay(Duration::from_millis(200))
            .set_connection_timeout(Some(COMMAND))
            .set_response_timeout(Some(COMMAND));
        let connection = ConnectionManager::new_lazy_with_config(client, manager)?;
        Ok(Self { connection, pool: pool.build().map_err(other)?, interruptions, round_trips })
    }

    /// Asks for its messages, over a connection that is made now. Once that is done, it is done again after
    /// each interruption.
    pub(super) async fn subscribe(&self) -> RedisResult<()> {
        self.connection.clone().subscribe(CHANNEL).await
    }

    /// The connection of the lock, for one request, which is counted: all go over one, in order.
    pub(super) fn request(&self) -> ConnectionManager {
        self.round_trips.inc();
        self.connection.clone()
    }

    /// How often the connection was interrupted.
    pub(super) fn interruptions(&self) -> u64 {
        self.interruptions.load(Ordering::Acquire)
    }

    /// Notes that the connection may have been interrupted.
    pub(super) fn interrupted(&self) {
        self.interruptions.fetch_add(1, Ordering::AcqRel);
    }

    /// What the server calls itself: another name after a restart, and where another has become the primary.
    /// Warns where it may take locks away.
    pub(super) async fn identity(&self) -> RedisResult<Identity> {
        let info: RedisResult<String> = redis::cmd("INFO").query_async(&mut self.request()).await;
        match info {
            Ok(info) => {
                let value = |name| value(&info, name).unwrap_or_default();
                let name = format!("{} {}", value("run_id"), value("master_replid"));
                Ok(Identity { name: name.into(), risk: eviction_risk(&info) })
            }
            Err(error) if is_of_the_connection(&error) => Err(error),
            // Who may not ask takes it for another each time.
            Err(_) => Ok(Identity { name: Uuid::new_v4().to_string().into(), risk: None }),
        }
    }

    /// Who has the lock on a key there, and who waits.
    pub(super) async fn state(&self, key: &str) -> Result<ServerState, String> {
        let mut connection = self.pool.get().await.map_err(|error| error.to_string())?;
        let [lock, readers, waiting] =
            ["lock", "readers", "waiting"].map(|part| key_of!(key, part).to_string());
        let ((owner, holder, token), readers, waiting): (WriterFields, Vec<String>, Vec<String>) =
            redis::pipe()
                .cmd("HMGET")
                .arg(lock)
                .arg(&["owner", "holder", "token"])
                .cmd("ZRANGE")
                .arg(readers)
                .arg(0)
                .arg(-1)
                .cmd("ZRANGE")
                .arg(waiting)
                .arg(0)
                .arg(-1)
                .query_async(&mut connection)
                .await
                .map_err(|error| error.to_string())?;
        let writer = owner.zip(token).map(|(owner, token)| (owner, holder, token));
        Ok(ServerState { writer, readers, waiting })
    }

    /// Ends the connections of the pool.
    pub(super) fn close(&self) {
        self.pool.close();
    }
}

/// What is kept of a writer: its owner, its replica and its token.
type WriterFields = (Option<String>, Option<String>, Option<i64>);

/// Who a server is.
pub(super) struct Identity {
    pub(super) name: Arc<str>,
    /// That it may take locks away, if it may.
    pub(super) risk: Option<String>,
}

impl Identity {
    /// Says what is wrong with the server, if something is.
    pub(super) fn warn(&self) {
        if let Some(risk) = &self.risk {
            tracing::warn!("{risk}");
        }
    }
}

/// Whether the request may have been carried out all the same, or the server is out of reach.
pub(super) fn is_of_the_connection(error: &redis::RedisError) -> bool {
    error.is_io_error() || error.is_timeout()
}

/// A value that `INFO` gives.
fn value<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// Says so if the server may take locks away when its memory is full.
fn eviction_risk(info: &str) -> Option<String> {
    let policy = value(info, "maxmemory_policy").filter(|policy| *policy != "noeviction")?;
    let limit = value(info, "maxmemory").filter(|limit| *limit != "0")?;
    Some(format!(
        "Redis evicts keys when its {limit} bytes are full (maxmemory-policy {policy}): also locks that are \
         held, of which there are two holders then; set noeviction, or give the locks a Redis of their own"
    ))
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn other(error: impl std::fmt::Display) -> redis::RedisError {
    std::io::Error::other(error.to_string()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_may_take_locks_is_a_risk_where_memory_is_limited() {
        let risk = |limit, policy| {
            eviction_risk(&format!(
                "# Memory\r\nmaxmemory:{limit}\r\nmaxmemory_human:0B\r\nmaxmemory_policy:{policy}\r\n"
            ))
        };
        assert_eq!(risk("0", "allkeys-lru"), None);
        assert_eq!(risk("1000", "noeviction"), None);
        // The keys of locks have an expiry, too.
        for policy in ["allkeys-lru", "volatile-ttl"] {
            let risk = risk("1000", policy).expect("a risk");
            assert!(risk.contains(policy) && risk.contains("1000"), "{risk}");
        }
        assert_eq!(eviction_risk(""), None);
    }
}
