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
//! Redis 6.2 or later (`GETDEL`). With one server; for what that means when it fails over to a replica, see
//! the experiment `redis-failover`, and the guard. Where several are configured, the lock is that of a
//! majority of them: [`redlock`].

mod redlock;
mod script;
mod server;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::{self, ConnectionInfo, RedisWrite as _};
use prometheus_client::metrics::counter::Counter;
use rand::RngExt as _;

use self::redlock::Redlock;
use self::script::Script;
use self::server::{Announcement, CHANNEL, COMMAND, RedisServer, is_of_the_connection, millis};
use super::leased::{Attempt, Backend, BackendError, Claim, LeasedLock, PLACE_TTL, Step, Wakeups};
use super::{ConnectError, FencingToken, Generation, Holder, LockError, LockState, Mode, TokenGenerations};
use crate::config::{LeaseTime, RedisSection, address_of};
use crate::telemetry::LockMetrics;

/// How long a note is kept. Who comes later has to read.
const NOTE_TTL: Duration = Duration::from_secs(10);

/// Connects to Redis. Fails where the server, or a majority of several, cannot be reached, or a URL is no
/// Redis URL.
pub(super) async fn connect(
    config: &RedisSection,
    holder: &str,
    generations: Arc<dyn TokenGenerations>,
    metrics: &LockMetrics,
) -> Result<LeasedLock, ConnectError> {
    let round_trips = metrics.round_trips.clone();
    let mut servers = config.url.connections()?;
    let urls: Vec<_> = config.url.iter().map(address_of).collect();
    let backend: Arc<dyn Backend> = match servers.pop() {
        Some(info) if servers.is_empty() => {
            let backend = RedisBackend::connect(info, generations, round_trips).await;
            let unavailable = |error: redis::RedisError| {
                let reason = format!("{}: {error}", urls[0]);
                LockError::Unavailable { dependency: NAME, reason }
            };
            Arc::new(backend.map_err(unavailable)?)
        }
        last => {
            let servers = servers.into_iter().chain(last);
            let servers = urls.into_iter().zip(servers).collect();
            Arc::new(Redlock::connect(servers, config.lease, generations, round_trips).await?)
        }
    };
    Ok(LeasedLock::new(backend, LeaseTime::For(config.lease), config.renew, holder, metrics))
}

/// What Redis is called in errors.
const NAME: &str = "Redis";

struct RedisBackend {
    server: RedisServer,
    wakeups: Arc<Wakeups>,
    scripts: Scripts,
    generations: Arc<dyn TokenGenerations>,
    counts: Counts,
}

/// How often a request tries again to connect to the only server there is.
const RETRIES: usize = 2;

/// How often a count that is lost is begun anew for one attempt.
const COUNT_LOST: usize = 3;

/// For how many keys it is remembered in which generation they are counted; without, it is asked again.
const MOST_COUNTS: usize = 65_536;

/// In which generation the tokens of each key are counted.
#[derive(Default)]
struct Counts {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// After how many interruptions of the connection all this was learnt: there may be another server since.
    since: u64,
    /// What the server calls itself; empty while that is not known.
    server: Arc<str>,
    generations: HashMap<Arc<str>, Generation>,
}

impl Counts {
    /// What is known since the last interruption, of so many.
    fn known(&self, interruptions: u64) -> MutexGuard<'_, Known> {
        let mut known = self.known.lock().expect("nothing panics while it holds this");
        if known.since != interruptions {
            *known = Known { since: interruptions, ..Known::default() };
        }
        known
    }

    /// Notes what was learnt after `since` interruptions, if there were no more.
    fn learnt(&self, since: u64, interruptions: u64, learn: impl FnOnce(&mut Known)) {
        let mut known = self.known(interruptions);
        if known.since == since {
            if known.generations.len() >= MOST_COUNTS {
                known.generations.clear();
            }
            learn(&mut known);
        }
    }
}

struct Scripts {
    acquire: Script,
    release: Script,
    renew: Script,
}

impl RedisBackend {
    async fn connect(
        info: ConnectionInfo,
        generations: Arc<dyn TokenGenerations>,
        round_trips: Counter,
    ) -> Result<Self, redis::RedisError> {
        let wakeups = Arc::new(Wakeups::default());
        let announced = Arc::clone(&wakeups);
        let server = RedisServer::new(info, RETRIES, round_trips, move |announcement| match announcement {
            Announcement::Released(text) => announced.announced(text),
            Announcement::Interrupted => announced.wake_all(),
        })?;
        server.subscribe().await?;
        let scripts = Scripts {
            acquire: Script::new(include_str!("redis/acquire.lua")),
            release: Script::new(include_str!("redis/release.lua")),
            renew: Script::new(include_str!("redis/renew.lua")),
        };
        Ok(Self { server, wakeups, scripts, generations, counts: Counts::default() })
    }

    /// `None`: the server has lost its count of the key's tokens, in this generation.
    async fn acquire(
        &self,
        claim: &Claim,
        generation: Generation,
    ) -> Result<Option<Attempt>, redis::RedisError> {
        let mut call =
            self.scripts.acquire.call(&claim.key, &["lock", "readers", "waiting", "places", "token", "note"]);
        call.write_arg_fmt(claim.owner.as_simple());
        call.arg(claim.mode.name()).arg(claim.lease.map_or(0, millis)).arg(millis(PLACE_TTL));
        call.arg(generation.base()).arg(i32::from(generation.is_new)).arg(&*claim.holder);
        let (outcome, number, note): (i32, i64, Option<String>) =
            self.scripts.acquire.run(&call, &mut self.server.request()).await?;
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
        let (since, name) = {
            let known = self.counts.known(self.server.interruptions());
            if let Some(generation) = known.generations.get(key)
                && lost != Some(generation.number)
            {
                return Ok(*generation);
            }
            (known.since, Arc::clone(&known.server))
        };
        let name = if name.is_empty() { self.name_of_server().await? } else { name };
        let generation = self.generations.generation(key, &name, lost).await;
        let generation = generation.map_err(AcquireError::Generations)?;
        self.counts.learnt(since, self.server.interruptions(), |known| {
            known.server = name;
            // It is new for this one attempt.
            known.generations.insert(Arc::clone(key), Generation { is_new: false, ..generation });
        });
        Ok(generation)
    }

    async fn name_of_server(&self) -> Result<Arc<str>, redis::RedisError> {
        let identity = self.server.identity().await?;
        identity.warn();
        Ok(identity.name)
    }
}

#[async_trait]
impl Backend for RedisBackend {
    async fn attempt(self: Arc<Self>, claim: Arc<Claim>, _: Step) -> Result<Attempt, BackendError> {
        match self.acquire_counted(&claim).await {
            // Its reply may be lost: asked again, the same owner gets the same lease.
            Err(AcquireError::Redis(error)) if is_of_the_connection(&error) => {
                self.server.interrupted();
                self.acquire_counted(&claim).await.map_err(failed)
            }
            attempt => attempt.map_err(failed),
        }
    }

    async fn renew(&self, claims: &[Arc<Claim>]) -> Vec<Result<bool, BackendError>> {
        let calls = claims.iter().map(|claim| {
            let mut call = self.scripts.renew.call(&claim.key, &["lock", "readers"]);
            call.write_arg_fmt(claim.owner.as_simple());
            call.arg(claim.lease.map_or(0, millis));
            call
        });
        let renewed = self.scripts.renew.run_all(calls, &mut self.server.request()).await;
        match renewed {
            Ok(renewed) => renewed.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(failed(error)); claims.len()],
        }
    }

    async fn release(&self, claim: &Arc<Claim>, note: Option<&str>) -> Result<(), BackendError> {
        let mut call =
            self.scripts.release.call(&claim.key, &["lock", "readers", "waiting", "places", "note"]);
        call.write_arg_fmt(claim.owner.as_simple());
        call.arg(CHANNEL).arg(&*claim.key).arg(note.unwrap_or_default()).arg(millis(NOTE_TTL));
        self.scripts.release.run(&call, &mut self.server.request()).await.map_err(failed)
    }

    async fn state(&self, key: &str) -> Result<LockState, BackendError> {
        let state = self.server.state(key).await.map_err(failed)?;
        let holder_of = |mode, token: Option<i64>, replica| {
            let token = token.map(FencingToken);
            Holder { key: key.into(), mode, token, replica, expired: false }
        };
        let writer = state.writer.map(|(_, replica, token)| holder_of(Mode::Exclusive, Some(token), replica));
        let readers = state.readers.into_iter().map(|_| holder_of(Mode::Shared, None, None));
        let waiting = state.waiting.len() as u64;
        Ok(LockState { holders: writer.into_iter().chain(readers).collect(), waiting })
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
        self.server.close();
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

fn failed(error: impl std::fmt::Display) -> BackendError {
    BackendError::Failed(error.to_string())
}
