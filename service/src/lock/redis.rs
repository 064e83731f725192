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
//! - A server that cannot be written to, since it is a replica or has become one, is left: its name is
//!   resolved again, or the sentinels are asked, until a primary is found. What a primary had not told its
//!   replica when that took over is gone, locks among it; the guard is what the stock relies on then, see the
//!   experiment `redis-failover`. Tokens go on in a new generation.
//!
//! Redis 6.2 or later (`GETDEL`). With one server, the primary that sentinels name ([`sentinel`]), or a
//! [`cluster`], where each key is on the node that has its slot. Where several are configured, the lock is
//! that of a majority of them: [`redlock`].

mod cluster;
mod counts;
mod dialer;
mod explained;
mod lock_server;
mod protocol;
mod redlock;
mod requirements;
mod script;
mod sentinel;
mod server;
mod session;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::{self, ConnectionInfo};
use prometheus_client::metrics::counter::Counter;
use rand::RngExt as _;

use self::cluster::Cluster;
use self::dialer::Dialer;
use self::lock_server::{AcquireError, LockServer};
use self::protocol::{COMMAND, is_of_a_demotion, is_of_the_connection};
use self::redlock::Redlock;
use self::requirements::{NAME, unavailable};
use self::sentinel::Sentinels;
use self::server::{Announcement, RedisServer};
use super::leased::{Attempt, Backend, BackendError, Claim, LeasedLock, Step, Wakeups};
use super::{ConnectError, LockState, TokenGenerations};
use crate::config::{ConfigError, LeaseTime, RedisSection, address_of};
use crate::telemetry::LockMetrics;

/// Connects to Redis. Fails where the server, the primary, a node of each slot, or a majority of several
/// servers cannot be reached, where one does not let us do what has to be done, or is not what the
/// configuration says.
pub(super) async fn connect(
    config: &RedisSection,
    holder: &str,
    generations: Arc<dyn TokenGenerations>,
    metrics: &LockMetrics,
) -> Result<LeasedLock, ConnectError> {
    let round_trips = metrics.round_trips.clone();
    let servers = config.connections()?;
    let urls: Vec<_> = config.url.iter().map(address_of).collect();
    let backend: Arc<dyn Backend> = if config.cluster {
        Arc::new(Cluster::connect(servers, generations, round_trips).await?)
    } else if config.sentinel.is_empty() && servers.len() > 1 {
        let servers = urls.into_iter().zip(servers).collect();
        Arc::new(Redlock::connect(servers, config.lease, generations, round_trips).await?)
    } else {
        let dialer = dialer(config, servers)?;
        Arc::new(RedisBackend::connect(&urls.join(","), dialer, generations, round_trips).await?)
    };
    Ok(LeasedLock::new(backend, LeaseTime::For(config.lease), config.renew, holder, metrics))
}

/// How the only server is reached, or the primary by its sentinels.
fn dialer(config: &RedisSection, servers: Vec<ConnectionInfo>) -> Result<Dialer, ConfigError> {
    let first = servers.first().cloned();
    let info = first.ok_or_else(|| ConfigError::new("lock.redis.url", "must list a server"))?;
    if config.sentinel.is_empty() {
        return Ok(Dialer::new(info, None));
    }
    let of_sentinel = |server: ConnectionInfo| {
        let mut settings = redis::RedisConnectionInfo::default();
        if !config.sentinel_user.is_empty() {
            settings = settings.set_username(&config.sentinel_user);
        }
        if !config.sentinel_password.reveal().is_empty() {
            settings = settings.set_password(config.sentinel_password.reveal());
        }
        server.set_redis_settings(settings)
    };
    let sentinels = servers.into_iter().map(of_sentinel).collect();
    Ok(Dialer::new(info, Some(Sentinels::new(&config.sentinel, sentinels))))
}

/// How often a request tries again to connect to the only server there is.
const RETRIES: u64 = 2;

/// The only server there is, or the primary of the time.
struct RedisBackend {
    server: LockServer,
    wakeups: Arc<Wakeups>,
}

impl RedisBackend {
    async fn connect(
        address: &str,
        dialer: Dialer,
        generations: Arc<dyn TokenGenerations>,
        round_trips: Counter,
    ) -> Result<Self, ConnectError> {
        let wakeups = Arc::new(Wakeups::default());
        let announced = Arc::clone(&wakeups);
        let server = RedisServer::new(dialer, RETRIES, round_trips, move |announcement| match announcement {
            Announcement::Released(text) => announced.announced(text),
            Announcement::Interrupted => announced.wake_all(),
        });
        let session = server.session().await.map_err(|error| unavailable(address, error))?;
        requirements::check(address, &session, false).await?;
        Ok(Self { server: LockServer::new(server, &Arc::default(), &generations), wakeups })
    }
}

#[async_trait]
impl Backend for RedisBackend {
    async fn attempt(self: Arc<Self>, claim: Arc<Claim>, _: Step) -> Result<Attempt, BackendError> {
        match self.server.acquire(&claim).await {
            // Its reply may be lost: asked again, the same owner gets the same lease. Or there is another
            // primary.
            Err(AcquireError::Redis(error)) if is_of_the_connection(&error) || is_of_a_demotion(&error) => {
                self.server.acquire(&claim).await.map_err(failed)
            }
            attempt => attempt.map_err(failed),
        }
    }

    async fn renew(&self, claims: &[Arc<Claim>]) -> Vec<Result<bool, BackendError>> {
        match self.server.renew(claims).await {
            Ok(renewed) => renewed.into_iter().map(|renewed| renewed.map_err(failed)).collect(),
            Err(error) => vec![Err(failed(error)); claims.len()],
        }
    }

    async fn release(&self, claim: &Arc<Claim>, note: Option<&str>) -> Result<(), BackendError> {
        self.server.release(claim, note).await.map_err(failed)
    }

    async fn state(&self, key: &str) -> Result<LockState, BackendError> {
        self.server.state(key).await.map_err(failed)
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
        self.server.server.close();
    }
}

fn failed(error: impl std::fmt::Display) -> BackendError {
    BackendError::Failed(error.to_string())
}
