//! One of the servers, and whether it answers. One that does not is left out until it does, so that nothing
//! waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use deadpool_redis::redis::{self, ConnectionInfo, ErrorKind, RedisError, RedisResult, RedisWrite as _};
use prometheus_client::metrics::counter::Counter;
use rand::RngExt as _;
use tokio::time::{Instant, sleep, timeout};

use super::NO_ANSWER;
use super::tally::Vote;
use crate::lock::FencingToken;
use crate::lock::leased::{Claim, PLACE_TTL};
use crate::lock::redis::dialer::Dialer;
use crate::lock::redis::lock_server::renewal_of;
use crate::lock::redis::protocol::{CHANNEL, is_of_the_connection, millis, other};
use crate::lock::redis::script::Script;
use crate::lock::redis::server::{Announcement, RedisServer};
use crate::lock::redis::session::Session;

/// How long after a server did not answer it is asked again whether it does, in milliseconds.
const ASKED_AGAIN_MS: std::ops::RangeInclusive<u64> = 50..=100;

/// The scripts, which all servers have alike.
pub(super) struct Scripts {
    acquire: Script,
    raise: Script,
    release: Script,
    renew: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            acquire: Script::new(include_str!("acquire.lua")),
            raise: Script::new(include_str!("raise.lua")),
            release: Script::new(include_str!("../release.lua")),
            renew: Script::new(include_str!("../renew.lua")),
        }
    }
}

/// One of the servers.
pub(super) struct Node {
    /// Its address, without a password.
    pub(super) address: String,
    pub(super) server: RedisServer,
    scripts: Arc<Scripts>,
    /// How long it has to answer before it is left out.
    limit: Duration,
    /// How many servers there are with it: what was counted with another number of them counts for nothing.
    servers: usize,
    answers: AtomicBool,
    known: Mutex<Known>,
}

struct Known {
    /// When it last answered.
    heard: Instant,
    /// What it answered last that was an error: to be said once.
    error: Option<String>,
}

impl Node {
    pub(super) fn new(
        address: String,
        info: ConnectionInfo,
        (servers, limit): (usize, Duration),
        scripts: &Arc<Scripts>,
        round_trips: Counter,
        announced: impl Fn(Announcement<'_>) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            address,
            // Whoever asks does not wait for one that is gone; it is tried again beside that.
            server: RedisServer::new(Dialer::new(info, None), 0, round_trips, announced),
            scripts: Arc::clone(scripts),
            limit,
            servers,
            answers: AtomicBool::new(true),
            known: Mutex::new(Known { heard: Instant::now(), error: None }),
        })
    }

    /// Whether it is worth asking.
    pub(super) fn answers(&self) -> bool {
        self.answers.load(Ordering::Acquire)
    }

    /// Notes that a request that was sent at this time has no answer yet, after all the time that it may
    /// take. One that has answered others meanwhile is only busy.
    pub(super) fn is_late_since(self: &Arc<Self>, sent: Instant) {
        if self.known().heard < sent {
            self.leave_out("it does not answer");
        }
    }

    /// Leaves it out until it answers.
    pub(super) fn leave_out(self: &Arc<Self>, why: &str) {
        if !self.answers.swap(false, Ordering::AcqRel) {
            return;
        }
        tracing::warn!(server = self.address, why, "a Redis server is left out until it answers");
        let (node, limit) = (Arc::downgrade(self), self.limit);
        tokio::spawn(async move {
            loop {
                let pause = rand::rng().random_range(ASKED_AGAIN_MS);
                sleep(Duration::from_millis(pause)).await;
                // None: the lock is gone.
                let Some(node) = node.upgrade() else { return };
                if let Ok(Ok(())) = timeout(limit * 2, node.hear()).await {
                    node.known().heard = Instant::now();
                    node.answers.store(true, Ordering::Release);
                    tracing::info!(server = node.address, "a Redis server answers again");
                    return;
                }
            }
        });
    }

    /// Whether it answers over the lock's own connection.
    async fn hear(&self) -> RedisResult<()> {
        let session = timeout(self.limit, self.server.session()).await.map_err(|_| other(NO_ANSWER))??;
        let (mut request, sent) = (session.request(), Instant::now());
        match timeout(self.limit, redis::cmd("PING").query_async(&mut request)).await {
            Ok(answer) => answer,
            Err(_) => {
                session.unheard(sent);
                Err(other(NO_ANSWER))
            }
        }
    }

    /// Takes the lock there, or a place among those who wait: the one of its ticket, if it has one.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        claim: &Claim,
        ticket: Option<i64>,
    ) -> Result<Vote, RedisError> {
        let session = self.session().await?;
        let mut call =
            self.scripts.acquire.call(&claim.key, &["lock", "readers", "waiting", "places", "count"]);
        call.write_arg_fmt(claim.owner.as_simple());
        call.arg(claim.mode.name()).arg(claim.lease.map_or(0, millis)).arg(millis(PLACE_TTL));
        call.arg(ticket.unwrap_or_default()).arg(self.counted_of(&session)).arg(&*claim.holder);
        let voted = self.scripts.acquire.run(&call, &session).await;
        let (outcome, number, place, owner): (i32, i64, i64, Option<String>) = self.heard(voted)?;
        if outcome != 1 {
            return Ok(Vote::Waits { ahead: u32::try_from(number).unwrap_or(u32::MAX), place, owner });
        }
        Ok(Vote::Granted { count: number })
    }

    /// Lets the server know a token of the claim, which has the lock of a majority. `false`: not here.
    pub(super) async fn raise(
        self: &Arc<Self>,
        claim: &Claim,
        token: FencingToken,
    ) -> Result<bool, RedisError> {
        let session = self.session().await?;
        let mut call = self.scripts.raise.call(&claim.key, &["lock", "count"]);
        call.write_arg_fmt(claim.owner.as_simple());
        call.arg(token.0).arg(self.counted_of(&session));
        let raised: RedisResult<i32> = self.scripts.raise.run(&call, &session).await;
        self.heard(raised).map(|raised| raised == 1)
    }

    /// Gives back whatever the claim has there.
    pub(super) async fn release(self: &Arc<Self>, claim: &Claim) -> Result<(), RedisError> {
        let mut call =
            self.scripts.release.call(&claim.key, &["lock", "readers", "waiting", "places", "note"]);
        call.write_arg_fmt(claim.owner.as_simple());
        // Without a note: on a server that was not asked it would outlive the holds that came after it.
        call.arg(CHANNEL).arg(&*claim.key).arg("").arg(0);
        let session = self.session().await?;
        let released = self.scripts.release.run(&call, &session).await;
        self.heard(released)
    }

    /// Extends the leases of these claims; for each, whether it has one there.
    pub(super) async fn renew(self: &Arc<Self>, claims: &[Arc<Claim>]) -> Result<Vec<bool>, RedisError> {
        let session = self.session().await?;
        let calls = claims.iter().map(|claim| renewal_of(&self.scripts.renew, claim));
        let renewed = self.scripts.renew.run_all(calls, &session).await;
        self.heard(renewed.and_then(|renewed| renewed.into_iter().collect()))
    }

    /// The connection, if there is one.
    async fn session(self: &Arc<Self>) -> RedisResult<Arc<Session>> {
        match self.server.session().await {
            // Not that it has answered: it was connected to before.
            Ok(session) => Ok(session),
            Err(error) => self.heard(Err(error)),
        }
    }

    /// Whose count of tokens it has to be: what the server calls itself, with so many others.
    fn counted_of(&self, session: &Session) -> String {
        format!("{} of {}", session.identity.name, self.servers)
    }

    /// Notes what came of a request.
    fn heard<T>(self: &Arc<Self>, result: RedisResult<T>) -> RedisResult<T> {
        match &result {
            Err(error) if is_of_the_connection(error) => self.leave_out(&error.to_string()),
            Ok(_) => {
                let mut known = self.known();
                (known.heard, known.error) = (Instant::now(), None);
            }
            // It answers, and will not do it.
            Err(error) => {
                let (mut known, error) = (self.known(), error.to_string());
                known.heard = Instant::now();
                if known.error.as_ref() != Some(&error) {
                    tracing::warn!(server = self.address, error, "a Redis server refuses");
                    known.error = Some(error);
                }
            }
        }
        result
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds this")
    }
}

/// Whether no other server can make up for this error: what the configuration says is wrong.
pub(super) fn is_of_the_configuration(error: &RedisError) -> bool {
    let is_forbidden = error.code().is_some_and(|code| ["NOAUTH", "WRONGPASS", "NOPERM"].contains(&code));
    is_forbidden || error.kind() == ErrorKind::AuthenticationFailed
}
