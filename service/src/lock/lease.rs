//! A lease: the right to be in the critical section, for as long as it is valid.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::FencingToken;

/// The right to be in the critical section.
///
/// It ends by [`release`](Self::release), which returns when the backend has taken it back; by drop, which
/// releases in the background; or by expiry, when neither could be done. A lease that has been
/// [entered](Self::enter) again ends with the last of its handles.
#[must_use = "a lease that is dropped is released"]
pub struct Lease {
    inner: Arc<Inner>,
}

struct Inner {
    token: Option<FencingToken>,
    /// Grows by one with every exclusive lease of the key, where the lock has such a number.
    sequence: Option<i64>,
    validity: Validity,
    hold: Option<Box<dyn Hold>>,
}

/// What a lock keeps for a lease. Its drop must release in the background, or leave it to the expiry.
#[async_trait]
pub trait Hold: Send + Sync {
    /// Gives the lock back; returns when that is done or handed to somebody who will see to it.
    async fn release(self: Box<Self>);
}

impl Lease {
    /// A lease that is valid for as long as `validity` says and ends with `hold`.
    pub fn new(token: Option<FencingToken>, validity: Validity, hold: Box<dyn Hold>) -> Self {
        Self { inner: Arc::new(Inner { token, sequence: None, validity, hold: Some(hold) }) }
    }

    /// A lease that cannot be lost, of a lock that has nothing to release but `hold`.
    pub fn unlimited(hold: Option<Box<dyn Hold>>) -> Self {
        Self { inner: Arc::new(Inner { token: None, sequence: None, validity: Validity::unlimited(), hold }) }
    }

    /// The fencing token, where the lock has one.
    pub fn token(&self) -> Option<FencingToken> {
        self.inner.token
    }

    /// A number that has grown by exactly one since the last exclusive lease of the key, where the lock has such a
    /// number: two leases whose numbers follow each other had no other between them.
    pub fn sequence(&self) -> Option<i64> {
        self.inner.sequence
    }

    /// Whether the lease is still good. To be asked before every side effect.
    pub fn check(&self) -> Result<(), Lost> {
        self.inner.validity.check()
    }

    /// Returns when the lease is lost; never, for one that cannot be.
    pub async fn lost(&self) {
        self.inner.validity.lost().await;
    }

    /// Enters the critical section again. The lock is released when all handles are.
    ///
    /// Reentry belongs to the lease, not to a thread or a counter on the server: whoever has the handle may
    /// enter, and a lost reply cannot leave a count behind.
    pub fn enter(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }

    /// Leaves the critical section; when this was the last handle, gives the lock back and waits for that.
    /// Dropping the future leaves the release to the background.
    pub async fn release(self) {
        let Some(inner) = Arc::into_inner(self.inner) else { return };
        if let Some(hold) = inner.hold {
            hold.release().await;
        }
    }

    /// The same lease with its number among the leases of its key. It must not have been entered again yet.
    pub(super) fn with_sequence(self, sequence: Option<i64>) -> Self {
        let inner = Arc::into_inner(self.inner).expect("a lease is numbered before it is handed out");
        Self { inner: Arc::new(Inner { sequence, ..inner }) }
    }

    /// The same lease with more to do at its end. For wrappers that measure; the lease must not have been
    /// entered again yet.
    pub(super) fn wrap(self, around: impl FnOnce(Option<Box<dyn Hold>>) -> Box<dyn Hold>) -> Self {
        let inner = Arc::into_inner(self.inner).expect("a lease is wrapped before it is handed out");
        let hold = Some(around(inner.hold));
        Self { inner: Arc::new(Inner { hold, ..inner }) }
    }

    pub(super) fn validity(&self) -> &Validity {
        &self.inner.validity
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("token", &self.inner.token).finish_non_exhaustive()
    }
}

/// The lease is over: somebody else may have the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease is lost")]
pub struct Lost;

/// How long a lease is valid; shared between the lease and whoever renews it.
#[derive(Debug, Clone)]
pub struct Validity {
    until: Arc<Mutex<Option<Instant>>>,
    lost: CancellationToken,
}

impl Validity {
    /// Valid until `until`, by this process's monotonic clock.
    pub fn until(until: Instant) -> Self {
        Self { until: Arc::new(Mutex::new(Some(until))), lost: CancellationToken::new() }
    }

    /// Valid until it is declared lost.
    pub fn unlimited() -> Self {
        Self { until: Arc::new(Mutex::new(None)), lost: CancellationToken::new() }
    }

    /// Moves the end, after a renewal.
    pub fn extend(&self, until: Instant) {
        *self.lock() = Some(until);
    }

    /// When the lease ends unless it is renewed.
    pub fn end(&self) -> Option<Instant> {
        *self.lock()
    }

    /// Declares the lease lost, for good.
    pub fn lose(&self) {
        self.lost.cancel();
    }

    /// Whether the lease is still good.
    pub fn check(&self) -> Result<(), Lost> {
        let over = self.end().is_some_and(|until| Instant::now() >= until);
        if over || self.lost.is_cancelled() { Err(Lost) } else { Ok(()) }
    }

    /// Returns when the lease is lost or over.
    pub async fn lost(&self) {
        while self.check().is_ok() {
            match self.end() {
                Some(until) => tokio::select! {
                    () = self.lost.cancelled() => return,
                    () = tokio::time::sleep_until(until) => {}
                },
                None => self.lost.cancelled().await,
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.until.lock().expect("nothing panics while it holds this")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Count(Arc<Mutex<u32>>);

    #[async_trait]
    impl Hold for Count {
        async fn release(self: Box<Self>) {
            *self.0.lock().unwrap() += 1;
        }
    }

    #[tokio::test]
    async fn a_lease_that_was_entered_again_is_released_once_by_its_last_handle() {
        let released = Arc::new(Mutex::new(0));
        let outer = Lease::unlimited(Some(Box::new(Count(Arc::clone(&released)))));
        let inner = outer.enter();
        outer.release().await;
        assert_eq!(*released.lock().unwrap(), 0);
        inner.release().await;
        assert_eq!(*released.lock().unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_by_the_clock_and_a_renewal_moves_the_end() {
        let validity = Validity::until(Instant::now() + Duration::from_secs(1));
        tokio::time::advance(Duration::from_millis(900)).await;
        assert_eq!(validity.check(), Ok(()));
        validity.extend(Instant::now() + Duration::from_secs(1));
        tokio::time::advance(Duration::from_millis(900)).await;
        assert_eq!(validity.check(), Ok(()));
        validity.lost().await;
        assert_eq!(validity.check(), Err(Lost));
    }
}
