//! What the locks with a lease have in common: owners, waiting, renewal and release around a [`Backend`].
//!
//! - Every attempt is an owner of its own. Whatever becomes of it, its release goes to the [`Releaser`], also
//!   where the acquire seemed to fail: its reply may have been lost.
//! - A lease is valid for less than the backend will wait, reckoned from before it was asked for; it is
//!   renewed three times in its length, by the [`Renewer`], and declared lost as soon as it is not its
//!   owner's any more.
//! - Those who wait try again when the backend announces a release of their key, and after a pause in any
//!   case: an announcement is a hint.

mod claim_release;
#[cfg(test)]
mod example;
mod renewer;
mod wakeups;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use self::claim_release::ClaimRelease;
use self::renewer::{Renewal, Renewer};
pub(super) use self::wakeups::Wakeups;
use super::lease::valid_until;
use super::pending_acquire::PendingAcquire;
use super::pending_reply::PendingReply;
use super::releaser::{PendingRelease, Releaser};
use super::{
    Acquire, FencingToken, Hold, Lease, Lock, LockError, LockState, Mode, NO_PRODUCT, Note, Validity,
};
use crate::config::LeaseTime;
use crate::telemetry::LockMetrics;

/// How long a waiter keeps its place after its last attempt.
pub(super) const PLACE_TTL: Duration = Duration::from_secs(1);

/// The operations of a backend that can hold leases. Every one may be repeated: its reply may have been lost.
#[async_trait]
pub(super) trait Backend: Send + Sync {
    /// Takes the lock if it is free and no other stands before the claim; otherwise sees to it that the claim
    /// has a place among those who wait, and keeps it.
    async fn attempt(self: Arc<Self>, claim: Arc<Claim>, step: Step) -> Result<Attempt, BackendError>;

    /// Keys that no product has, with which the lock is tried out: one for each server that has locks of its
    /// own.
    fn trial_keys(&self) -> Vec<String> {
        vec![NO_PRODUCT.into()]
    }

    /// Extends the leases of these claims, or sees whether they are there, where they have no end. For each,
    /// `false` when it has none any more.
    async fn renew(&self, claims: &[Arc<Claim>]) -> Vec<Result<bool, BackendError>>;

    /// Gives back whatever an owner has: the lock, or its place among those who wait. `note` is for the next
    /// exclusive holder, where the backend keeps notes.
    async fn release(&self, claim: &Arc<Claim>, note: Option<&str>) -> Result<(), BackendError>;

    /// Who has the lock on a key, and how many wait.
    async fn state(&self, key: &str) -> Result<LockState, BackendError>;

    /// Where it announces that a lock that is waited for may have become free.
    fn wakeups(&self) -> &Arc<Wakeups>;

    /// How long to wait before the next attempt without an announcement, with so many ahead. Jittered, so
    /// that waiters do not poll in step.
    fn pause(&self, ahead: u32) -> Duration;

    /// What it is called in errors.
    fn name(&self) -> &'static str;

    /// How long after a broken connection what was sent over it may still be carried out.
    fn late_write_window(&self) -> Duration;

    /// Ends all connections; what is asked afterwards fails.
    async fn close(&self);
}

/// One attempt to acquire a lock.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) key: Arc<str>,
    pub(super) mode: Mode,
    pub(super) owner: Uuid,
    pub(super) holder: Arc<str>,
    /// `None`: for ever.
    pub(super) lease: Option<Duration>,
    /// Whether its caller has gone: what has not been sent for it need not be.
    pub(super) is_abandoned: AtomicBool,
}

/// Whether a claim asks for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    First,
    Again,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempt {
    /// With a note about what the lock protects, if there is one.
    Acquired(FencingToken, Option<Note>),
    /// So many stand before it, or another holder has the lock.
    Waits { ahead: u32 },
}

/// Why a backend did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum BackendError {
    /// Others keep it from it at the moment.
    #[error("{0}")]
    Busy(String),
    /// It failed, or could not be reached.
    #[error("{0}")]
    Failed(String),
}

/// A lock on a backend that can hold leases.
pub(super) struct LeasedLock {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Arc<dyn Backend>,
    lease: LeaseTime,
    holder: Arc<str>,
    releaser: Releaser,
    /// `None`: leases are left to end.
    renewer: Option<Renewer>,
}

impl LeasedLock {
    /// A lock whose leases are of length `lease`, in the name of the replica `holder`.
    pub(super) fn new(
        backend: Arc<dyn Backend>,
        lease: LeaseTime,
        renews: bool,
        holder: &str,
        metrics: &LockMetrics,
    ) -> Self {
        let releaser = Releaser::start();
        let renewer = renews.then(|| Renewer::start(&backend, lease, metrics.renewals.clone()));
        Self { inner: Arc::new(Inner { backend, lease, holder: holder.into(), releaser, renewer }) }
    }
}

impl Inner {
    /// Claims the lock until it has it.
    async fn acquire(&self, key: &Arc<str>, mode: Mode, reply: &PendingReply) -> Result<Lease, LockError> {
        loop {
            let lease = self.claim(Arc::clone(key), mode, reply).await?;
            if lease.check().is_ok() {
                return Ok(lease);
            }
            // The reply took longer than the lease, and brought nothing; the next one may come sooner.
            tracing::warn!(
                key = &**key,
                "a lease was over when its grant was heard of; it is asked for again"
            );
        }
    }

    async fn claim(&self, key: Arc<str>, mode: Mode, reply: &PendingReply) -> Result<Lease, LockError> {
        let claim = Arc::new(Claim {
            key,
            mode,
            owner: uuid::Builder::from_random_bytes(rand::random()).into_uuid(),
            holder: Arc::clone(&self.holder),
            lease: self.lease.duration(),
            is_abandoned: AtomicBool::new(false),
        });
        // From here on the lock, or the place among those who wait, is given back, whatever becomes of this
        // attempt.
        let mut release = self.releaser.pending(ClaimRelease::new(&self.backend, &claim));
        let granted = self.wait(&claim, release.get_mut(), reply).await;
        granted.map(|granted| self.lease(&claim, release, granted)).map_err(|error| self.unavailable(error))
    }

    /// Waits for the claim's turn.
    async fn wait(
        &self,
        claim: &Arc<Claim>,
        release: &mut ClaimRelease,
        reply: &PendingReply,
    ) -> Result<Granted, BackendError> {
        // Before the first attempt: whatever changes after it wakes this waiter.
        let waiter = self.backend.wakeups().register(&claim.key, claim.owner);
        let mut step = Step::First;
        loop {
            let asked = Instant::now();
            let attempt = Arc::clone(&self.backend).attempt(Arc::clone(claim), step);
            let ahead = match reply.during(release.after(attempt)).await {
                Ok(Attempt::Acquired(token, note)) => {
                    return Ok(Granted { token, note, asked, is_contended: step == Step::Again });
                }
                Ok(Attempt::Waits { ahead }) => ahead,
                Err(BackendError::Busy(_)) => 0,
                Err(error @ BackendError::Failed(_)) => return Err(error),
            };
            // An error says that the pause is over.
            drop(timeout(self.backend.pause(ahead), waiter.woken()).await);
            step = Step::Again;
        }
    }

    fn lease(&self, claim: &Arc<Claim>, release: PendingRelease<ClaimRelease>, granted: Granted) -> Lease {
        let Granted { token, note, asked, is_contended } = granted;
        let validity = match self.lease {
            LeaseTime::Never => Validity::unlimited(),
            LeaseTime::For(lease) => Validity::until(valid_until(asked, lease)),
        };
        let renewal = self.renewer.as_ref().map(|renewer| renewer.renew(claim, &validity));
        let lease = Lease::new(Some(token), validity, Box::new(LeasedHold { release, renewal }));
        lease.with_note(note).contended(is_contended)
    }

    fn unavailable(&self, error: impl std::fmt::Display) -> LockError {
        LockError::Unavailable { dependency: self.backend.name(), reason: error.to_string() }
    }
}

/// How much earlier than asked for it is said that one of several servers does not answer.
const SPARE: Duration = Duration::from_millis(200);

#[async_trait]
impl Lock for LeasedLock {
    fn begin(&self, key: &str, mode: Mode) -> Box<dyn Acquire> {
        let reply = Arc::new(PendingReply::default());
        let (shared, key, pending) = (Arc::clone(&self.inner), Arc::from(key), Arc::clone(&reply));
        let acquisition = async move { shared.acquire(&key, mode, &pending).await };
        let shared = Arc::clone(&self.inner);
        Box::new(PendingAcquire::new(acquisition, move || {
            reply.is_suspicious().map_or(LockError::Timeout, |pending| {
                shared.unavailable(format_args!("no answer for {} ms", pending.as_millis()))
            })
        }))
    }

    fn lease(&self) -> Option<Duration> {
        self.inner.lease.duration()
    }

    async fn try_out(&self, deadline: Instant) -> Result<(), LockError> {
        let keys = self.inner.backend.trial_keys();
        if let [key] = keys.as_slice() {
            return self.try_out_at(key, deadline).await;
        }
        // Before whoever asks has given up: where one of several servers does not answer, that is no lack of
        // time, whatever the others do.
        let deadline = deadline - SPARE;
        let trials = keys.iter().map(|key| self.try_out_at(key, deadline));
        try_join_all(trials).await.map(drop).map_err(|error| match error {
            LockError::Timeout => self.inner.unavailable("a server does not answer"),
            error => error,
        })
    }

    async fn state(&self, key: &str) -> Result<LockState, LockError> {
        let Inner { backend, .. } = &*self.inner;
        backend.state(key).await.map_err(|error| self.inner.unavailable(error))
    }

    async fn shutdown(&self) {
        self.inner.releaser.flush().await;
        self.inner.backend.close().await;
    }
}

/// What was granted to a claim.
struct Granted {
    token: FencingToken,
    note: Option<Note>,
    /// When it was asked for.
    asked: Instant,
    /// Whether it had to be waited for.
    is_contended: bool,
}

/// What a lease has to give back.
struct LeasedHold {
    release: PendingRelease<ClaimRelease>,
    renewal: Option<Renewal>,
}

#[async_trait]
impl Hold for LeasedHold {
    async fn release(self: Box<Self>, note: Option<Note>) {
        let Self { release, renewal } = *self;
        drop(renewal);
        release.now(note.as_deref()).await;
    }
}
