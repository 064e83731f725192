//! The lock in Redis: a key that is set when absent, with an expiry, an owner and a fencing token.
//!
//! - Each operation is one script, so one round trip, and atomic: `SETNX` and `EXPIRE` can never be torn apart,
//!   and only its owner deletes a lock. An uncontended cycle is two commands.
//! - Those who wait have a queue in Redis (the course says that Redis has one; it has none until it is built): first come first served, readers together. A place lapses a second after its waiter stopped looking.
//! - A release that another waits for is published, and wakes whose turn it is. The message is a hint; looking again is
//!   the backstop.
//! - Who releases may leave a note about what the lock protects. The next holder gets it, unless somebody else had the
//!   lock in between: it is gone as soon as the lock is taken.
//! - All commands of the lock go over one connection, in order: a cancelled attempt's release cannot overtake its
//!   acquire.
//! - The fencing token is a counter in Redis. A server that is new, has lost its data or has come back with older
//!   data would count anew: so after every interruption of the connection, the first to ask for a lock has its counter
//!   raised to the greatest token of the product's latest orders, and always to the greatest that it has had itself.
//!
//! Redis 6.2 or later (`GETDEL`). One server; for what that means when it fails over to a replica, see the experiment `redis-failover` of the
//! course, and the guard.

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
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use deadpool_redis::redis::{
    self, Client, IntoConnectionInfo as _, ProtocolVersion, PushInfo, PushKind, RedisWrite as _, Value,
};
use deadpool_redis::{Pool, Runtime};
use prometheus_client::metrics::counter::Counter;
use rand::RngExt as _;

use self::script::Script;
use super::leased::{Attempt, Backend, BackendError, Claim, LeasedLock, PLACE_TTL, Step, Wakeups};
use super::{Census, FencingToken, Holder, LockError, Mode, TokenFloor};
use crate::config::{LeaseTime, RedisSection};
use crate::telemetry::LockMetrics;

/// The channel on which releases are published.
const CHANNEL: &str = "stocklock:released";

/// How long a note is kept. Who comes later has to read.
const NOTE_TTL: Duration = Duration::from_secs(10);

/// How long one command may take.
const COMMAND: Duration = Duration::from_secs(2);

/// Connects to Redis.
pub(super) async fn connect(
    config: &RedisSection,
    holder: &str,
    floor: Arc<dyn TokenFloor>,
    metrics: &LockMetrics,
) -> Result<LeasedLock, LockError> {
    let backend = RedisBackend::connect(config, floor, metrics.round_trips.clone())
        .await
        .map_err(|error| LockError::Unavailable { dependency: NAME, reason: error.to_string() })?;
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
    floor: Arc<dyn TokenFloor>,
    floors: Floors,
    round_trips: Counter,
}

/// How many floors are remembered; without its floor, a key's orders are asked again.
const MOST_FLOORS: usize = 65_536;

/// Below what no fencing token may be, for each key.
#[derive(Default)]
struct Floors {
    /// How often the connection was interrupted, after which the server may have other data.
    interruptions: Arc<AtomicU64>,
    known: Mutex<HashMap<String, Floor>>,
}

#[derive(Clone, Copy)]
struct Floor {
    token: i64,
    /// After how many interruptions it was taken from the orders.
    since: u64,
}

impl Floors {
    /// The floor of a key; `None` when it has to be looked up in the orders.
    fn of(&self, key: &str) -> Option<i64> {
        let since = self.interruptions.load(Ordering::Acquire);
        self.known().get(key).filter(|floor| floor.since == since).map(|floor| floor.token)
    }

    /// How many interruptions there were until now: to be asked before the orders are.
    fn now(&self) -> u64 {
        self.interruptions.load(Ordering::Acquire)
    }

    /// Notes what the orders had as their greatest token at `since`.
    fn looked_up(&self, key: &str, token: i64, since: u64) {
        let mut known = self.known();
        if known.len() >= MOST_FLOORS {
            known.clear();
        }
        let floor = known.entry(key.into()).or_insert(Floor { token, since });
        *floor = Floor { token: floor.token.max(token), since };
    }

    /// Notes a token that was had.
    fn had(&self, key: &str, token: i64) {
        if let Some(floor) = self.known().get_mut(key) {
            floor.token = floor.token.max(token);
        }
    }

    fn interrupted(&self) {
        self.interruptions.fetch_add(1, Ordering::AcqRel);
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Floor>> {
        self.known.lock().expect("nothing panics while it holds this")
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
        floor: Arc<dyn TokenFloor>,
        round_trips: Counter,
    ) -> Result<Self, redis::RedisError> {
        let wakeups = Arc::new(Wakeups::default());
        let announced = Arc::clone(&wakeups);
        let floors = Floors::default();
        let interruptions = Arc::clone(&floors.interruptions);
        let info = config.url.as_str().into_connection_info()?;
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
            floor,
            floors,
            round_trips,
        })
    }

    async fn acquire(&self, claim: &Claim, floor: i64) -> Result<Attempt, redis::RedisError> {
        self.round_trips.inc();
        let mut call =
            self.scripts.acquire.call(&claim.key, &["lock", "readers", "waiting", "places", "token", "note"]);
        call.write_arg_fmt(claim.owner.as_simple());
        call.arg(mode_name(claim.mode)).arg(claim.lease.map_or(0, millis)).arg(millis(PLACE_TTL));
        call.arg(floor).arg(&*claim.holder);
        let (is_acquired, number, note): (bool, i64, Option<String>) =
            self.scripts.acquire.run(&call, &mut self.connection.clone()).await?;
        Ok(if is_acquired {
            self.floors.had(&claim.key, number);
            Attempt::Acquired(FencingToken(number), note.map(String::into_boxed_str))
        } else {
            Attempt::Waits { ahead: u32::try_from(number).unwrap_or(u32::MAX) }
        })
    }

    /// Below what no fencing token of the key may be.
    async fn floor(&self, key: &str) -> Result<i64, BackendError> {
        if let Some(token) = self.floors.of(key) {
            return Ok(token);
        }
        let since = self.floors.now();
        let token = self.floor.greatest_token(key).await.map_err(failed)?;
        self.floors.looked_up(key, token, since);
        Ok(self.floors.of(key).unwrap_or(token))
    }
}

#[async_trait]
impl Backend for RedisBackend {
    async fn attempt(self: Arc<Self>, claim: Arc<Claim>, _: Step) -> Result<Attempt, BackendError> {
        let floor = self.floor(&claim.key).await?;
        match self.acquire(&claim, floor).await {
            // Its reply may be lost: asked again, the same owner is told of the same lease.
            Err(error) if error.is_io_error() || error.is_timeout() => {
                self.floors.interrupted();
                let floor = self.floor(&claim.key).await?;
                self.acquire(&claim, floor).await.map_err(failed)
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

    async fn census(&self, key: &str) -> Result<Census, BackendError> {
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
        Ok(Census { holders: writer.into_iter().chain(readers).collect(), waiting })
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
        // Redis carries out what it has read, in no time; what it has not read by then it finds the connection closed.
        COMMAND
    }

    async fn close(&self) {
        self.pool.close();
    }
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "exclusive",
        Mode::Shared => "shared",
    }
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
