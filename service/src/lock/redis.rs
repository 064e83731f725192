//! The lock in Redis: a key that is set when absent, with an expiry, an owner and a fencing token.
//!
//! - Each operation is one script, so one round trip, and atomic: `SETNX` and `EXPIRE` can never be torn apart,
//!   and only its owner deletes a lock. An uncontended cycle is two commands.
//! - Those who wait have a queue in Redis (the course says that Redis has one; it has none until somebody builds
//!   it): first come first served, readers together. A place lapses a second after its waiter stopped looking.
//! - A release that somebody waits for is published. The message is a hint; looking again is the backstop.
//! - All commands of the lock go over one connection, in order: a cancelled attempt's release cannot overtake its
//!   acquire.
//! - The fencing token is a counter in Redis. Where there is none, because the server is new or has lost its data,
//!   it starts above the greatest token that any order of the product has.
//!
//! One server; for what that means when it fails over to a replica, see the experiment `redis-failover` of the
//! course, and the guard.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use deadpool_redis::redis::{
    self, Client, IntoConnectionInfo as _, ProtocolVersion, PushInfo, PushKind, Script,
};
use deadpool_redis::{Pool, Runtime};
use rand::RngExt as _;
use tokio::sync::watch;

use super::shell::{Attempt, Backend, BackendError, Claim, LeasedLock, PLACE_TTL, Step};
use super::{Census, FencingToken, Holder, LockError, Mode};
use crate::config::{LeaseTime, RedisSection};
use crate::order::Sku;
use crate::store::Store;

/// The channel on which releases are published.
const CHANNEL: &str = "stocklock:released";

/// How long one command may take.
const COMMAND: Duration = Duration::from_secs(2);

/// Connects to Redis.
pub(super) async fn connect(
    config: &RedisSection,
    holder: &str,
    store: Arc<dyn Store>,
) -> Result<LeasedLock, LockError> {
    let backend = RedisBackend::connect(config, store)
        .await
        .map_err(|error| LockError::Unavailable { dependency: NAME, reason: error.to_string() })?;
    Ok(LeasedLock::new(Arc::new(backend), LeaseTime::For(config.lease), config.renew, holder))
}

/// What Redis is called in errors.
const NAME: &str = "Redis";

struct RedisBackend {
    /// For the lock, and for its messages.
    connection: ConnectionManager,
    /// For everything else, so that it never waits behind the lock.
    pool: Pool,
    released: watch::Receiver<()>,
    scripts: Scripts,
    store: Arc<dyn Store>,
}

struct Scripts {
    acquire: Script,
    release: Script,
    renew: Script,
}

impl RedisBackend {
    async fn connect(config: &RedisSection, store: Arc<dyn Store>) -> Result<Self, redis::RedisError> {
        let (announce, released) = watch::channel(());
        let info = config.url.as_str().into_connection_info()?;
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(settings))?;
        let manager = ConnectionManagerConfig::new()
            .set_push_sender(move |push: PushInfo| {
                // A message says that a lock is free, and an interruption that one may have been missed.
                if matches!(push.kind, PushKind::Message | PushKind::Subscribe | PushKind::Disconnection) {
                    announce.send_replace(());
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
        Ok(Self { connection, pool: pool.build().map_err(other)?, released, scripts, store })
    }

    /// Asks for the lock; `None`: the fencing tokens have to be told where to start.
    async fn acquire(&self, claim: &Claim, floor: i64) -> Result<Option<Attempt>, redis::RedisError> {
        let lease = claim.lease.map_or(0, millis);
        let mut script = self.scripts.acquire.prepare_invoke();
        for key in keys(&claim.key) {
            script.key(key);
        }
        script.arg(claim.owner.to_string()).arg(mode_name(claim.mode)).arg(lease);
        script.arg(millis(PLACE_TTL)).arg(floor).arg(&claim.holder);
        let (outcome, number): (String, i64) = script.invoke_async(&mut self.connection.clone()).await?;
        Ok(match outcome.as_str() {
            "acquired" => Some(Attempt::Acquired(FencingToken(number))),
            "waits" => Some(Attempt::Waits { ahead: u32::try_from(number).unwrap_or(u32::MAX) }),
            _ => None,
        })
    }

    /// The greatest fencing token that an order of the product has.
    async fn greatest_token(&self, key: &str) -> Result<i64, BackendError> {
        let Ok(sku) = Sku::parse(key) else { return Ok(0) };
        let token = self.store.greatest_token(&sku).await;
        token.map(|token| token.unwrap_or(0)).map_err(|error| BackendError::Failed(error.to_string()))
    }
}

#[async_trait]
impl Backend for RedisBackend {
    async fn attempt(&self, claim: &Claim, _: Step) -> Result<Attempt, BackendError> {
        let first = match self.acquire(claim, -1).await {
            // Its reply may be lost: asked again, the same owner is told of the same lease.
            Err(error) if error.is_io_error() || error.is_timeout() => self.acquire(claim, -1).await,
            answer => answer,
        };
        if let Some(attempt) = first.map_err(failed)? {
            return Ok(attempt);
        }
        let floor = self.greatest_token(&claim.key).await?;
        let attempt = self.acquire(claim, floor).await.map_err(failed)?;
        attempt.ok_or_else(|| BackendError::Failed("the fencing tokens have no beginning".into()))
    }

    async fn renew(&self, claim: &Claim, lease: Duration) -> Result<bool, BackendError> {
        let mut script = self.scripts.renew.prepare_invoke();
        for key in keys(&claim.key) {
            script.key(key);
        }
        script.arg(claim.owner.to_string()).arg(millis(lease));
        let renewed: i64 = script.invoke_async(&mut self.connection.clone()).await.map_err(failed)?;
        Ok(renewed == 1)
    }

    async fn release(&self, claim: &Claim) -> Result<(), BackendError> {
        let mut script = self.scripts.release.prepare_invoke();
        for key in keys(&claim.key) {
            script.key(key);
        }
        script.arg(claim.owner.to_string()).arg(CHANNEL);
        script.invoke_async::<()>(&mut self.connection.clone()).await.map_err(failed)
    }

    async fn census(&self, key: &str) -> Result<Census, BackendError> {
        let mut connection = self.pool.get().await.map_err(failed)?;
        let [lock, readers, waiting, _, _] = keys(key);
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

    fn changes(&self) -> Option<watch::Receiver<()>> {
        Some(self.released.clone())
    }

    fn pause(&self, _ahead: u32) -> Duration {
        Duration::from_millis(rand::rng().random_range(50..=100))
    }

    fn name(&self) -> &'static str {
        NAME
    }

    async fn close(&self) {
        self.pool.close();
    }
}

/// The keys of a lock. The braces keep them on one node of a cluster.
fn keys(key: &str) -> [String; 5] {
    ["lock", "readers", "waiting", "places", "token"].map(|part| format!("stocklock:{{{key}}}:{part}"))
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
