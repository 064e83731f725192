//! A lease: the right to be in the critical section, for as long as it is valid.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::{FencingToken, Note};
use crate::clock;

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
    /// For this holder.
    note: Option<Note>,
    /// Whether it had to be waited for.
    is_contended: bool,
    /// For the next one.
    left_note: Mutex<Option<Note>>,
    validity: Validity,
    granted_ns: u64,
    hold: Option<Box<dyn Hold>>,
}

/// What a lock keeps for a lease. Its drop must release in the background, or leave it to the expiry.
#[async_trait]
pub trait Hold: Send + Sync {
    /// Gives the lock back; returns when that is done or left to the releaser.
    /// The next exclusive holder gets the note, where the lock has notes and no other holder came in between.
    async fn release(self: Box<Self>, note: Option<Note>);
}

impl Lease {
    /// A lease that is valid for as long as `validity` says and ends with `hold`.
    pub fn new(token: Option<FencingToken>, validity: Validity, hold: Box<dyn Hold>) -> Self {
        Self::of(token, validity, Some(hold))
    }

    /// A lease that cannot be lost, of a lock that has nothing to release but `hold`.
    pub fn unlimited(hold: Option<Box<dyn Hold>>) -> Self {
        Self::of(None, Validity::unlimited(), hold)
    }

    fn of(token: Option<FencingToken>, validity: Validity, hold: Option<Box<dyn Hold>>) -> Self {
        let left_note = Mutex::new(None);
        Self {
            inner: Arc::new(Inner {
                token,
                sequence: None,
                note: None,
                is_contended: false,
                left_note,
                validity,
                granted_ns: clock::now_ns(),
                hold,
            }),
        }
    }

    /// The fencing token, where the lock has one.
    pub fn token(&self) -> Option<FencingToken> {
        self.inner.token
    }

    /// A number that has grown by exactly one since the last exclusive lease of the key, where the lock has
    /// such a number: two leases whose numbers follow each other had no other between them.
    pub fn sequence(&self) -> Option<i64> {
        self.inner.sequence
    }

    /// What is noted about what the lock protects, where the lock has notes: as it was after the last
    /// exclusive holder, or later.
    pub fn note(&self) -> Option<&str> {
        self.inner.note.as_deref()
    }

    /// Whether others had the lock, or stood before this one, when it was asked for, as far as is known: they
    /// will want it again.
    pub fn is_contended(&self) -> bool {
        self.inner.is_contended
    }

    /// When it was known to be granted, in nanoseconds of the clock by which holds are recorded.
    pub fn granted_ns(&self) -> u64 {
        self.inner.granted_ns
    }

    /// Leaves a note for the next exclusive holder. It gets lost when this lease does not end by its
    /// [release](Self::release), and where the lock has no notes.
    pub fn leave_note(&self, note: impl Into<Note>) {
        *self.inner.left_note.lock().expect("nothing panics while it holds this") = Some(note.into());
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
            hold.release(inner.left_note.into_inner().unwrap_or_default()).await;
        }
    }

    /// The same lease with its number among the leases of its key. It must not have been entered again yet.
    pub(super) fn with_sequence(mut self, sequence: Option<i64>) -> Self {
        self.inner_mut().sequence = sequence;
        self
    }

    /// The same lease with a note for its holder. It must not have been entered again yet.
    pub(super) fn with_note(mut self, note: Option<Note>) -> Self {
        self.inner_mut().note = note;
        self
    }

    /// The same lease, which had to be waited for or not. It must not have been entered again yet.
    pub(super) fn contended(mut self, is_contended: bool) -> Self {
        self.inner_mut().is_contended = is_contended;
        self
    }

    /// The same lease with more to do at its end. For wrappers that measure; the lease must not have been
    /// entered again yet.
    pub(super) fn wrap(mut self, around: impl FnOnce(Option<Box<dyn Hold>>) -> Box<dyn Hold>) -> Self {
        let inner = self.inner_mut();
        inner.hold = Some(around(inner.hold.take()));
        self
    }

    fn inner_mut(&mut self) -> &mut Inner {
        Arc::get_mut(&mut self.inner).expect("a lease is changed before it is entered again")
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

/// The lease is over: another holder may have the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease is lost")]
pub struct Lost;

/// How long a lease is valid; shared between the lease and whoever renews it.
#[derive(Debug, Clone)]
pub struct Validity {
    shared: Arc<SharedValidity>,
    /// What it cannot outlive.
    around: Option<Arc<SharedValidity>>,
}

#[derive(Debug)]
struct SharedValidity {
    /// `None`: until it is declared lost.
    until: Mutex<Option<Instant>>,
    is_lost: AtomicBool,
    /// Announces that it is lost.
    lost: Notify,
}

impl Validity {
    /// Valid until `until`, by this process's monotonic clock.
    pub fn until(until: Instant) -> Self {
        Self::new(Some(until))
    }

    /// Valid until it is declared lost.
    pub fn unlimited() -> Self {
        Self::new(None)
    }

    fn new(until: Option<Instant>) -> Self {
        let (until, is_lost) = (Mutex::new(until), AtomicBool::new(false));
        Self { shared: Arc::new(SharedValidity { until, is_lost, lost: Notify::new() }), around: None }
    }

    /// Valid until it is declared lost, and for no longer than this one, whatever it may be by then.
    pub fn within(&self) -> Self {
        Self { around: Some(Arc::clone(&self.shared)), ..Self::unlimited() }
    }

    /// Moves the end, also of what had ended: for what the backend kept all the while.
    pub fn extend(&self, until: Instant) {
        *self.shared.lock() = Some(until);
    }

    /// Moves the end of what has not ended; `false` when it has: its holder may have noticed.
    pub fn renew(&self, until: Instant) -> bool {
        let mut end = self.shared.lock();
        let is_valid = self.shared.is_valid(*end);
        if is_valid {
            *end = Some(until);
        }
        is_valid
    }

    /// When the lease ends unless it is renewed.
    pub fn end(&self) -> Option<Instant> {
        let around = self.around.as_ref().and_then(|around| around.end());
        [self.shared.end(), around].into_iter().flatten().min()
    }

    /// Declares the lease lost, for good.
    pub fn lose(&self) {
        self.shared.is_lost.store(true, Ordering::SeqCst);
        self.shared.lost.notify_waiters();
    }

    /// Whether the lease is still good.
    pub fn check(&self) -> Result<(), Lost> {
        let is_valid = |validity: &SharedValidity| validity.is_valid(validity.end());
        match is_valid(&self.shared) && self.around.as_deref().is_none_or(is_valid) {
            true => Ok(()),
            false => Err(Lost),
        }
    }

    /// Returns when the lease is lost or over.
    pub async fn lost(&self) {
        match &self.around {
            None => self.shared.lost().await,
            Some(around) => tokio::select! {
                () = self.shared.lost() => {}
                () = around.lost() => {}
            },
        }
    }
}

/// Until when a lease of `length` is valid that the backend grants no earlier than `asked`, the instant
/// before the request for it was sent: less than the backend will keep it, by what two clocks may drift apart
/// (1%) and a thread may be late (2 ms).
pub(super) fn valid_until(asked: Instant, length: Duration) -> Instant {
    asked + (length - length / 100).saturating_sub(Duration::from_millis(2))
}

impl SharedValidity {
    fn end(&self) -> Option<Instant> {
        *self.lock()
    }

    fn is_valid(&self, end: Option<Instant>) -> bool {
        !self.is_lost.load(Ordering::SeqCst) && end.is_none_or(|end| Instant::now() < end)
    }

    async fn lost(&self) {
        loop {
            let mut lost = pin!(self.lost.notified());
            // Before the check: what happens after it is noticed.
            lost.as_mut().enable();
            let end = self.end();
            if !self.is_valid(end) {
                return;
            }
            match end {
                // An error says that the end has come, unless it was moved.
                Some(until) => drop(timeout_at(until, lost).await),
                None => lost.await,
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.until.lock().expect("nothing panics while it holds this")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Count(Arc<Mutex<u32>>);

    #[async_trait]
    impl Hold for Count {
        async fn release(self: Box<Self>, _: Option<Note>) {
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
    async fn a_lease_is_valid_for_less_than_the_backend_keeps_it() {
        let asked = Instant::now();
        let valid_for = |ms| valid_until(asked, Duration::from_millis(ms)) - asked;
        assert_eq!(valid_for(10_000), Duration::from_millis(9_898));
        assert_eq!(valid_for(1), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_does_not_outlive_what_it_is_within() {
        let around = Validity::until(Instant::now() + Duration::from_secs(1));
        let (one, other) = (around.within(), around.within());
        one.lose();
        one.lost().await;
        assert_eq!((one.check(), other.check()), (Err(Lost), Ok(())));
        around.extend(Instant::now() + Duration::from_secs(2));
        let until = Instant::now() + Duration::from_secs(2);
        assert_eq!(other.end(), Some(until));
        other.lost().await;
        assert_eq!((Instant::now(), other.check()), (until, Err(Lost)));
        // It may turn out to have lived on.
        around.extend(until + Duration::from_secs(1));
        assert_eq!(other.check(), Ok(()));
        around.lose();
        assert_eq!(other.check(), Err(Lost));
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
        assert!(!validity.renew(Instant::now() + Duration::from_secs(1)), "its holder may have noticed");
        assert_eq!(validity.check(), Err(Lost));
    }
}
