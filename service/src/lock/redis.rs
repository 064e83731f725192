//! The lock in Redis: a key that is set when absent, with an expiry, an owner and a fencing token.
//!
//! - Each operation is one script, so one round trip, and atomic: `SETNX` and `EXPIRE` can never be torn
//!   apart, and only its owner deletes a lock. An uncontended cycle is two commands.
//! - Those who wait stand in a queue, which is built here, since Redis has none: first come first served,
//!   readers together. A place lapses a second after its waiter's last attempt.
//! - A release that another waits for is published, and wakes whose turn it is. The message is a hint;
//!   another attempt after a pause is the backstop.
//! - Who releases may leave a note about what the lock protects. The next holder gets it, unless another
//!   holder had the lock in between: it is gone as soon as the lock is taken.
//! - All commands of the lock go over one connection, in order: a cancelled attempt's release cannot overtake
//!   its acquire.
//! - The fencing token is a counter in Redis, which a server that is new, was flushed, evicts keys or has
//!   come back with older data would begin anew. So the upper half of a token is a generation, which is kept
//!   with the orders: a new one begins where the counter is gone or is another server's.
//!
//! Redis 6.2 or later (`GETDEL`). One server; for what that means when it fails over to a replica, see the
//! experiment `redis-failover`, and the guard.

/// The name of a part of a lock. The braces keep all parts on one node of a cluster.
macro_rules! key_of {
    ($key:expr, $part:expr) => {
        format_args!("stocklock:{{{}}}:{}", $key, $part)
    };
}
use key_of;

mod script;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use deadpool_redis::redis::{
    self, Client, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion, PushInfo, PushKind,
    RedisWrite as _, Value,
};
use deadpool_redis::{Pool, Runtime};
use prometheus_client::metrics::counter::Counter;
use rand::RngExt as _;
use uuid::Uuid;

use self::script::Script;
use super::leased::{Attempt, Backend, BackendError, Claim, LeasedLock, PLACE_TTL, Step, Wakeups};
use super::{ConnectError, FencingToken, Generation, Holder, LockError, LockState, Mode, TokenGenerations};
use crate::config::{ConfigError, LeaseTime, RedisSection, address_of};
use crate::telemetry::LockMetrics;

/// The channel on which releases are published.
const CHANNEL: &str = "stocklock:released";

/// How long a note is kept. Who comes later has to read.
const NOTE_TTL: Duration = Duration::from_secs(10);

/// How long one command may take.
const COMMAND: Duration = Duration::from_secs(2);

/// Connects to Redis. Fails where the server cannot be reached, or the URL is no Redis URL.
pub(super) async fn connect(
    config: &RedisSection,
    holder: &str,
    generations: Arc<dyn TokenGenerations>,
    metrics: &LockMetrics,
) -> Result<LeasedLock, ConnectError> {
    let refuse = |error: redis::RedisError| ConfigError::new("lock.redis.url", error.to_string());
    let info = config.url.as_str().into_connection_info().map_err(refuse)?;
    let unavailable = |error: redis::RedisError| {
        let reason = format!("{}: {error}", address_of(&config.url));
        LockError::Unavailable { dependency: NAME, reason }
    };
    let backend = RedisBackend::connect(config, info, generations, metrics.round_trips.clone())
        .await
        .map_err(unavailable)?;
    let lease = LeaseTime::For(config.lease);
    Ok(LeasedLock::new(Arc::new(backend), lease, config.renew, holder, metrics))
}

/// What Redis is called in errors.
const NAME: &str = "Redis";

struct RedisBackend {
    /// For the lock, and for its messages.
    connection: ConnectionManager,
    /// For everything else, so that it never waits behind the lock.
    pool: Pool,
    wakeups: Arc<Wakeups>,
    scripts: Scripts,
    generations: Arc<dyn TokenGenerations>,
    counts: Counts,
    round_trips: Counter,
}

/// How often a count that is lost is begun anew for one attempt.
const COUNT_LOST: usize = 3;

/// For how many keys it is remembered in which generation they are counted; without, it is asked again.
const MOST_COUNTS: usize = 65_536;

/// In which generation the tokens of each key are counted.
#[derive(Default)]
struct Counts {
    /// How often the connection was interrupted, after which there may be another server.
    interruptions: Arc<AtomicU64>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// After how many interruptions all this was learnt.
    since: u64,
    /// What the server calls itself; empty while that is not known.
    server: Arc<str>,
    generations: HashMap<Arc<str>, Generation>,
}

impl Counts {
    /// What is known since the last interruption.
    fn known(&self) -> MutexGuard<'_, Known> {
        let since = self.interruptions.load(Ordering::Acquire);
        let mut known = self.known.lock().expect("nothing panics while it holds this");
        if known.since != since {
            *known = Known { since, ..Known::default() };
        }
        known
    }

    /// Notes what was learnt after so many interruptions.
    fn learnt(&self, since: u64, learn: impl FnOnce(&mut Known)) {
        let mut known = self.known();
        if known.since == since {
            if known.generations.len() >= MOST_COUNTS {
                known.generations.clear();
            }
            learn(&mut known);
        }
    }

    fn interrupted(&self) {
        self.interruptions.fetch_add(1, Ordering::AcqRel);
    }
}

struct Scripts {
    acquire: Script,
    release: Script,
    renew: Script,
}

impl RedisBackend {
    async fn connect(
        config: &RedisSection,
        info: ConnectionInfo,
        generations: Arc<dyn TokenGenerations>,
        round_trips: Counter,
    ) -> Result<Self, redis::RedisError> {
        let wakeups = Arc::new(Wakeups::default());
        let announced = Arc::clone(&wakeups);
        let counts = Counts::default();
        let interruptions = Arc::clone(&counts.interruptions);
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        // A server that vanishes without a word is given up when it has acknowledged nothing for so long.
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(COMMAND * 2);
        let client = Client::open(info.set_redis_settings(settings).set_tcp_settings(tcp))?;
        let manager = ConnectionManagerConfig::new()
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    interruptions.fetch_add(1, Ordering::AcqRel);
                }
                match (&push.kind, push.data.as_slice()) {
                    (PushKind::Message, [_, Value::BulkString(announcement)]) => {
                        announced.announced(&String::from_utf8_lossy(announcement));
                    }
                    // In an interruption, one may have been missed.
                    (PushKind::Message | PushKind::Subscribe | PushKind::Disconnection, _) => {
                        announced.wake_all();
                    }
                    _ => {}
                }
                Ok::<(), ()>(())
            })
            .set_automatic_resubscription()
            .set_number_of_retries(2)
            .set_max_delay(Duration::from_millis(200))
            .set_connection_timeout(Some(COMMAND))
            .set_response_timeout(Some(COMMAND));
        let mut connection = ConnectionManager::new_with_config(client, manager).await?;
        connection.subscribe(CHANNEL).await?;
        let pool = deadpool_redis::Config::from_url(&config.url);
        let mut pool = pool.builder().map_err(other)?.max_size(2).runtime(Runtime::Tokio1);
        pool = pool.wait_timeout(Some(COMMAND)).create_timeout(Some(COMMAND)).recycle_timeout(Some(COMMAND));
        let scripts = Scripts {
            acquire: Script::new(include_str!("redis/acquire.lua")),
            release: Script::new(include_str!("redis/release.lua")),
            renew: Script::new(include_str!("redis/renew.lua")),
        };
        Ok(Self {
            connection,
            pool: pool.build().map_err(other)?,
            wakeups,
            scripts,
            generations,
            counts,
            round_trips,
        })
    }

    /// `None`: the server has lost its count of the key's tokens, in this generation.
    async fn acquire(
        &self,
        claim: &Claim,
        generation: Generation,
    ) -> Result<Option<Attempt>, redis::RedisError> {
        self.round_trips.inc();
        let mut call =
            self.scripts.acquire.call(&claim.key, &["lock", "readers", "waiting", "places", "token", "note"]);
        call.write_arg_fmt(claim.owner.as_simple());
        call.arg(claim.mode.name()).arg(claim.lease.map_or(0, millis)).arg(millis(PLACE_TTL));
        call.arg(generation.base()).arg(i32::from(generation.is_new)).arg(&*claim.holder);
        let (outcome, number, note): (i32, i64, Option<String>) =
            self.scripts.acquire.run(&call, &mut self.connection.clone()).await?;
        Ok(match outcome {
            0 => Some(Attempt::Waits { ahead: u32::try_from(number).unwrap_or(u32::MAX) }),
            1 => Some(Attempt::Acquired(FencingToken(number), note.map(String::into_boxed_str))),
            _ => None,
        })
    }

    /// Acquires in the key's generation, or the next one, where the count is lost.
    async fn acquire_counted(&self, claim: &Claim) -> Result<Attempt, AcquireError> {
        let mut generation = self.generation(&claim.key, None).await?;
        for _ in 0..COUNT_LOST {
            let attempt = self.acquire(claim, generation).await;
            if let Some(attempt) = attempt? {
                return Ok(attempt);
            }
            tracing::warn!(key = &*claim.key, "Redis has lost its count of fencing tokens");
            generation = self.generation(&claim.key, Some(generation.number)).await?;
        }
        Err(AcquireError::CountLost)
    }

    /// The generation in which the key's tokens are counted, which is not the one that is `lost`.
    async fn generation(&self, key: &Arc<str>, lost: Option<i64>) -> Result<Generation, AcquireError> {
        let (since, server) = {
            let known = self.counts.known();
            if let Some(generation) = known.generations.get(key)
                && lost != Some(generation.number)
            {
                return Ok(*generation);
            }
            (known.since, Arc::clone(&known.server))
        };
        let server = if server.is_empty() { self.server().await? } else { server };
        let generation = self.generations.generation(key, &server, lost).await;
        let generation = generation.map_err(AcquireError::Generations)?;
        self.counts.learnt(since, |known| {
            known.server = server;
            // It is new for this one attempt.
            known.generations.insert(Arc::clone(key), Generation { is_new: false, ..generation });
        });
        Ok(generation)
    }

    /// What the server calls itself: another name after a restart, and where another has become the primary.
    async fn server(&self) -> Result<Arc<str>, redis::RedisError> {
        self.round_trips.inc();
        let info: redis::RedisResult<String> =
            redis::cmd("INFO").query_async(&mut self.connection.clone()).await;
        match info {
            Ok(info) => {
                if let Some(risk) = eviction_risk(&info) {
                    tracing::warn!("{risk}");
                }
                let value = |name| value(&info, name).unwrap_or_default();
                Ok(format!("{} {}", value("run_id"), value("master_replid")).into())
            }
            Err(error) if error.is_io_error() || error.is_timeout() => Err(error),
            // Who may not ask takes it for another each time.
            Err(_) => Ok(Uuid::new_v4().to_string().into()),
        }
    }
}

#[async_trait]
impl Backend for RedisBackend {
    async fn attempt(self: Arc<Self>, claim: Arc<Claim>, _: Step) -> Result<Attempt, BackendError> {
        match self.acquire_counted(&claim).await {
            // Its reply may be lost: asked again, the same owner gets the same lease.
            Err(AcquireError::Redis(error)) if error.is_io_error() || error.is_timeout() => {
                self.counts.interrupted();
                self.acquire_counted(&claim).await.map_err(failed)
            }
            attempt => attempt.map_err(failed),
        }
    }

    async fn renew(&self, claims: &[Arc<Claim>]) -> Vec<Result<bool, BackendError>> {
        self.round_trips.inc();
        let calls = claims.iter().map(|claim| {
            let mut call = self.scripts.renew.call(&claim.key, &["lock", "readers"]);
            call.write_arg_fmt(claim.owner.as_simple());
            call.arg(claim.lease.map_or(0, millis));
            call
        });
        let renewed = self.scripts.renew.run_all(calls, &mut self.connection.clone()).await;
        match renewed {
            Ok(renewed) => renewed.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(failed(error)); claims.len()],
        }
    }

    async fn release(&self, claim: &Arc<Claim>, note: Option<&str>) -> Result<(), BackendError> {
        self.round_trips.inc();
        let mut call =
            self.scripts.release.call(&claim.key, &["lock", "readers", "waiting", "places", "note"]);
        call.write_arg_fmt(claim.owner.as_simple());
        call.arg(CHANNEL).arg(&*claim.key).arg(note.unwrap_or_default()).arg(millis(NOTE_TTL));
        self.scripts.release.run(&call, &mut self.connection.clone()).await.map_err(failed)
    }

    async fn state(&self, key: &str) -> Result<LockState, BackendError> {
        let mut connection = self.pool.get().await.map_err(failed)?;
        let [lock, readers, waiting] =
            ["lock", "readers", "waiting"].map(|part| key_of!(key, part).to_string());
        let ((holder, token), readers, waiting): ((Option<String>, Option<i64>), Vec<String>, u64) =
            redis::pipe()
                .cmd("HMGET")
                .arg(lock)
                .arg("holder")
                .arg("token")
                .cmd("ZRANGE")
                .arg(readers)
                .arg(0)
                .arg(-1)
                .cmd("ZCARD")
                .arg(waiting)
                .query_async(&mut connection)
                .await
                .map_err(failed)?;
        let holder_of = |mode, token: Option<i64>, replica| {
            let token = token.map(FencingToken);
            Holder { key: key.into(), mode, token, replica, expired: false }
        };
        let writer = token.map(|token| holder_of(Mode::Exclusive, Some(token), holder));
        let readers = readers.into_iter().map(|_| holder_of(Mode::Shared, None, None));
        Ok(LockState { holders: writer.into_iter().chain(readers).collect(), waiting })
    }

    async fn ping(&self) -> Result<(), BackendError> {
        let mut connection = self.pool.get().await.map_err(failed)?;
        redis::cmd("PING").query_async::<()>(&mut connection).await.map_err(failed)
    }

    fn wakeups(&self) -> &Arc<Wakeups> {
        &self.wakeups
    }

    fn pause(&self, _ahead: u32) -> Duration {
        Duration::from_millis(rand::rng().random_range(50..=100))
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn late_write_window(&self) -> Duration {
        // Redis carries out what it has read, in no time; what it has not read by then it finds the
        // connection closed.
        COMMAND
    }

    async fn close(&self) {
        self.pool.close();
    }
}

/// Why a lock was not acquired.
#[derive(Debug, thiserror::Error)]
enum AcquireError {
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
    #[error("where the generations of fencing tokens are kept: {0}")]
    Generations(String),
    #[error("it loses its count of fencing tokens over and over")]
    CountLost,
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

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn failed(error: impl std::fmt::Display) -> BackendError {
    BackendError::Failed(error.to_string())
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
