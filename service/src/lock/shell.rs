//! What the locks with a lease have in common: owners, waiting, renewal and release around a [`Backend`].
//!
//! - Every attempt is an owner of its own. Whatever becomes of it, its release goes to the [`Releaser`], also
//!   where the acquire seemed to fail: its reply may have been lost.
//! - A lease is valid for less than the backend will wait, reckoned from before it was asked for; it is renewed
//!   three times in its length, and declared lost as soon as it is not its owner's any more.
//! - Those who wait look again when the backend announces a release, and after a pause in any case: an
//!   announcement is a hint.

mod releaser;
mod renewal;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use self::releaser::{Obligation, Releaser};
use self::renewal::{Renewal, valid_until};
use super::pending::Pending;
use super::silence::Silence;
use super::{Acquire, Census, FencingToken, Hold, Lease, Lock, LockError, Mode, Validity};
use crate::config::LeaseTime;
use crate::telemetry::LockMetrics;

/// How long a waiter keeps its place that does not come back to look.
pub(super) const PLACE_TTL: Duration = Duration::from_secs(1);

/// The operations of a backend that can hold leases. Every one may be repeated: its reply may have been lost.
#[async_trait]
pub(super) trait Backend: Send + Sync {
    /// Takes the lock if it is free and nobody stands before the claim; otherwise sees to it that the claim has a
    /// place among those who wait, and keeps it.
    async fn attempt(&self, claim: &Claim, step: Step) -> Result<Attempt, BackendError>;

    /// Extends an owner's lease; `false` when it has none any more.
    async fn renew(&self, claim: &Claim, lease: Duration) -> Result<bool, BackendError>;

    /// Gives back whatever an owner has: the lock, or its place among those who wait.
    async fn release(&self, claim: &Claim) -> Result<(), BackendError>;

    /// Who has the lock on a key, and how many wait.
    async fn census(&self, key: &str) -> Result<Census, BackendError>;

    /// Whether the backend answers.
    async fn ping(&self) -> Result<(), BackendError>;

    /// Fires when a lock that somebody waits for may have become free; `None` where nobody says so.
    fn changes(&self) -> Option<watch::Receiver<()>>;

    /// How long to wait before looking again, with so many ahead. Jittered, so that those who wait do not look in
    /// step.
    fn pause(&self, ahead: u32) -> Duration;

    /// Whether the tokens of a key grow by exactly one with every exclusive lease.
    fn counts_each_key(&self) -> bool {
        false
    }

    /// What it is called in errors.
    fn name(&self) -> &'static str;

    /// How long after a broken connection what was sent over it may still be carried out.
    fn straggles(&self) -> Duration;

    /// Ends all connections.
    async fn close(&self);
}

/// One attempt to have a lock.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) key: String,
    pub(super) mode: Mode,
    pub(super) owner: Uuid,
    pub(super) holder: String,
    /// `None`: for ever.
    pub(super) lease: Option<Duration>,
}

/// Whether a claim asks for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    First,
    Again,
}

/// What a claim is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    Acquired(FencingToken),
    /// So many stand before it, or somebody has the lock.
    Waits {
        ahead: u32,
    },
}

/// Why a backend did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum BackendError {
    /// Others kept it from it for too long.
    #[error("{0}")]
    Busy(String),
    /// It failed, or could not be reached.
    #[error("{0}")]
    Failed(String),
}

/// A lock on a backend that can hold leases.
pub(super) struct LeasedLock {
    shared: Arc<Shared>,
}

struct Shared {
    backend: Arc<dyn Backend>,
    lease: LeaseTime,
    renews: bool,
    holder: String,
    releaser: Releaser,
    metrics: LockMetrics,
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
        let releaser = Releaser::start(Arc::clone(&backend), lease);
        let holder = holder.into();
        Self {
            shared: Arc::new(Shared { backend, lease, renews, holder, releaser, metrics: metrics.clone() }),
        }
    }
}

impl Shared {
    async fn acquire(&self, key: String, mode: Mode, silence: &Silence) -> Result<Lease, LockError> {
        let claim = Claim {
            key,
            mode,
            owner: Uuid::new_v4(),
            holder: self.holder.clone(),
            lease: self.lease.duration(),
        };
        // From here on the lock, or the place among those who wait, is given back, whatever becomes of this attempt.
        let mut obligation = self.releaser.obligation(claim.clone());
        match self.wait(&claim, &mut obligation, silence).await {
            Ok((token, asked)) => {
                let lease = self.lease(claim, obligation, token, asked);
                // A reply that took longer than the lease brought nothing.
                lease.check().map_err(|_| LockError::Timeout)?;
                Ok(lease)
            }
            Err(BackendError::Busy(_)) => Err(LockError::Timeout),
            Err(error @ BackendError::Failed(_)) => Err(self.unavailable(error)),
        }
    }

    /// Waits for the claim's turn. Answers the token and when it was asked for.
    async fn wait(
        &self,
        claim: &Claim,
        obligation: &mut Obligation,
        silence: &Silence,
    ) -> Result<(FencingToken, Instant), BackendError> {
        let mut changes = self.backend.changes();
        let mut step = Step::First;
        loop {
            // Whatever changes from here on is noticed below, also when the attempt came too early for it.
            changes.as_mut().map(watch::Receiver::borrow_and_update);
            let asked = Instant::now();
            // In a task of its own: an attempt that is dropped half way may still succeed, over a connection that its
            // release does not share. Whoever releases waits for its end first.
            let (backend, claimed) = (Arc::clone(&self.backend), claim.clone());
            let attempt =
                obligation.watch(tokio::spawn(async move { backend.attempt(&claimed, step).await }));
            let ahead = match silence.during(attempt).await? {
                Attempt::Acquired(token) => return Ok((token, asked)),
                Attempt::Waits { ahead } => ahead,
            };
            if step == Step::Again {
                let changed = async {
                    let announced = match &mut changes {
                        Some(changes) => changes.changed().await.is_ok(),
                        None => false,
                    };
                    if !announced {
                        std::future::pending::<()>().await;
                    }
                };
                // An error says that the pause is over.
                timeout(self.backend.pause(ahead), changed).await.ok();
            }
            step = Step::Again;
        }
    }

    fn lease(&self, claim: Claim, obligation: Obligation, token: FencingToken, asked: Instant) -> Lease {
        let (validity, renewal) = match self.lease {
            LeaseTime::Never => (Validity::unlimited(), None),
            LeaseTime::For(lease) => {
                let validity = Validity::until(valid_until(asked, lease));
                let backend = Arc::clone(&self.backend);
                let renewal = Renewal::start(backend, claim, lease, &validity, self.metrics.renewals.clone());
                (validity, self.renews.then_some(renewal))
            }
        };
        let sequence = self.backend.counts_each_key().then_some(token.0);
        Lease::new(Some(token), validity, Box::new(Held { obligation, renewal })).with_sequence(sequence)
    }

    fn unavailable(&self, error: impl std::fmt::Display) -> LockError {
        LockError::Unavailable { dependency: self.backend.name(), reason: error.to_string() }
    }
}

#[async_trait]
impl Lock for LeasedLock {
    fn begin(&self, key: &str, mode: Mode) -> Box<dyn Acquire> {
        let silence = Arc::new(Silence::default());
        let (shared, key, heard) = (Arc::clone(&self.shared), key.to_owned(), Arc::clone(&silence));
        let acquisition = async move { shared.acquire(key, mode, &heard).await };
        let shared = Arc::clone(&self.shared);
        Box::new(Pending::new(acquisition, move || {
            silence.is_suspicious().map_or(LockError::Timeout, |silent| {
                shared.unavailable(format_args!("no answer for {} ms", silent.as_millis()))
            })
        }))
    }

    async fn ping(&self) -> Result<(), LockError> {
        let Shared { backend, .. } = &*self.shared;
        backend.ping().await.map_err(|error| self.shared.unavailable(error))
    }

    async fn census(&self, key: &str) -> Result<Census, LockError> {
        let Shared { backend, .. } = &*self.shared;
        backend.census(key).await.map_err(|error| self.shared.unavailable(error))
    }

    async fn shutdown(&self) {
        self.shared.releaser.flush().await;
        self.shared.backend.close().await;
    }
}

/// What a lease has to give back.
struct Held {
    obligation: Obligation,
    renewal: Option<Renewal>,
}

#[async_trait]
impl Hold for Held {
    async fn release(self: Box<Self>) {
        let Self { obligation, renewal } = *self;
        drop(renewal);
        obligation.fulfil().await;
    }
}
