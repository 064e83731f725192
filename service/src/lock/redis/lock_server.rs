//! One server that grants locks on its own: the only one there is, or the node of a cluster that has the key.

use std::sync::Arc;

use deadpool_redis::redis::{Cmd, RedisError, RedisResult, RedisWrite as _};

use super::counts::Counts;
use super::protocol::{CHANNEL, NOTE_TTL, millis};
use super::script::Script;
use super::server::RedisServer;
use super::session::Session;
use crate::lock::leased::{Attempt, Claim, PLACE_TTL};
use crate::lock::{FencingToken, Generation, Holder, LockState, Mode, TokenGenerations};

/// How often a count that is lost is begun anew for one attempt.
const COUNT_LOST: usize = 3;

/// A server with the scripts of the lock, and what is known of its tokens.
pub(super) struct LockServer {
    pub(super) server: RedisServer,
    scripts: Arc<Scripts>,
    generations: Arc<dyn TokenGenerations>,
    counts: Counts,
}

/// The scripts, which all servers have alike.
pub(super) struct Scripts {
    acquire: Script,
    release: Script,
    renew: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            acquire: Script::new(include_str!("acquire.lua")),
            release: Script::new(include_str!("release.lua")),
            renew: Script::new(include_str!("renew.lua")),
        }
    }
}

impl Scripts {
    fn renewal_of(&self, claim: &Claim) -> Cmd {
        renewal_of(&self.renew, claim)
    }
}

/// The call that extends a claim's lease. It has one key alone: a cluster grants it also while it moves the
/// key's slot.
pub(super) fn renewal_of(renew: &Script, claim: &Claim) -> Cmd {
    let part = match claim.mode {
        Mode::Exclusive => "lock",
        Mode::Shared => "readers",
    };
    let mut call = renew.call(&claim.key, &[part]);
    call.write_arg_fmt(claim.owner.as_simple());
    call.arg(claim.lease.map_or(0, millis)).arg(claim.mode.name());
    call
}

impl LockServer {
    pub(super) fn new(
        server: RedisServer,
        scripts: &Arc<Scripts>,
        generations: &Arc<dyn TokenGenerations>,
    ) -> Self {
        let (scripts, generations) = (Arc::clone(scripts), Arc::clone(generations));
        Self { server, scripts, generations, counts: Counts::default() }
    }

    /// Acquires in the key's generation, or the next one, where the count is lost.
    pub(super) async fn acquire(&self, claim: &Claim) -> Result<Attempt, AcquireError> {
        let session = self.server.session().await?;
        let attempt = self.acquire_counted(&session, claim).await;
        if let Err(AcquireError::Redis(error)) = &attempt
            && error.is_cluster_error()
        {
            // Its slot may come back, with what another node has counted.
            self.counts.forget(&claim.key);
        }
        attempt
    }

    async fn acquire_counted(&self, session: &Arc<Session>, claim: &Claim) -> Result<Attempt, AcquireError> {
        let mut generation = self.generation(session, &claim.key, None).await?;
        for _ in 0..COUNT_LOST {
            if let Some(attempt) = self.acquire_in(session, claim, generation).await? {
                return Ok(attempt);
            }
            tracing::warn!(key = &*claim.key, "Redis has lost its count of fencing tokens");
            generation = self.generation(session, &claim.key, Some(generation.number)).await?;
        }
        Err(AcquireError::CountLost)
    }

    /// `None`: the server has lost its count of the key's tokens, in this generation.
    async fn acquire_in(
        &self,
        session: &Arc<Session>,
        claim: &Claim,
        generation: Generation,
    ) -> RedisResult<Option<Attempt>> {
        let script = &self.scripts.acquire;
        let mut call = script.call(&claim.key, &["lock", "readers", "waiting", "places", "token", "note"]);
        call.write_arg_fmt(claim.owner.as_simple());
        call.arg(claim.mode.name()).arg(claim.lease.map_or(0, millis)).arg(millis(PLACE_TTL));
        call.arg(generation.base()).arg(i32::from(generation.is_new)).arg(&*claim.holder);
        let (outcome, number, note): (i32, i64, Option<String>) = script.run(&call, session).await?;
        Ok(match outcome {
            0 => Some(Attempt::Waits { ahead: u32::try_from(number).unwrap_or(u32::MAX) }),
            1 => Some(Attempt::Acquired(FencingToken(number), note.map(String::into_boxed_str))),
            _ => None,
        })
    }

    /// The generation in which the key's tokens are counted, which is not the one that is `lost`.
    async fn generation(
        &self,
        session: &Session,
        key: &Arc<str>,
        lost: Option<i64>,
    ) -> Result<Generation, AcquireError> {
        if let Some(generation) = self.counts.of(session.number, key)
            && lost != Some(generation.number)
        {
            return Ok(generation);
        }
        let generation = self.generations.generation(key, &session.identity.name, lost).await;
        let generation = generation.map_err(AcquireError::Generations)?;
        self.counts.learnt(session.number, key, generation);
        Ok(generation)
    }

    /// Extends the leases of these claims, in one round trip; for each, whether it has one.
    pub(super) async fn renew(&self, claims: &[Arc<Claim>]) -> RedisResult<Vec<RedisResult<bool>>> {
        let session = self.server.session().await?;
        let calls = claims.iter().map(|claim| self.scripts.renewal_of(claim));
        self.scripts.renew.run_all(calls, &session).await
    }

    /// Extends the lease of a claim whose slot is being moved here.
    pub(super) async fn renew_asking(&self, claim: &Claim) -> RedisResult<bool> {
        let session = self.server.session().await?;
        self.scripts.renew.run_asking(&self.scripts.renewal_of(claim), &session).await
    }

    /// Gives back whatever a claim has, with a note for the next holder.
    pub(super) async fn release(&self, claim: &Claim, note: Option<&str>) -> RedisResult<()> {
        let session = self.server.session().await?;
        let script = &self.scripts.release;
        let mut call = script.call(&claim.key, &["lock", "readers", "waiting", "places", "note"]);
        call.write_arg_fmt(claim.owner.as_simple());
        call.arg(CHANNEL).arg(&*claim.key).arg(note.unwrap_or_default()).arg(millis(NOTE_TTL));
        script.run(&call, &session).await
    }

    /// Who has the lock on a key there, and how many wait.
    pub(super) async fn state(&self, key: &str) -> RedisResult<LockState> {
        let state = self.server.state(key).await?;
        let holder_of = |mode, token: Option<i64>, replica| {
            let token = token.map(FencingToken);
            Holder { key: key.into(), mode, token, replica, expired: false }
        };
        let writer = state.writer.map(|(_, replica, token)| holder_of(Mode::Exclusive, Some(token), replica));
        let readers = state.readers.into_iter().map(|_| holder_of(Mode::Shared, None, None));
        let waiting = state.waiting.len() as u64;
        Ok(LockState { holders: writer.into_iter().chain(readers).collect(), waiting })
    }
}

/// Why a lock was not acquired.
#[derive(Debug, thiserror::Error)]
pub(super) enum AcquireError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("where the generations of fencing tokens are kept: {0}")]
    Generations(String),
    #[error("it loses its count of fencing tokens over and over")]
    CountLost,
}
