//! Who is to be woken when a lock may have become free.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

/// The waiters of a process, by key.
///
/// A wake-up is a hint. It is kept for whoever is registered but does not wait at this moment, so that what happens
/// between a look and the wait is not missed.
#[derive(Default)]
pub(in crate::lock) struct Wakeups {
    waiters: Mutex<HashMap<Arc<str>, Vec<Arc<Notify>>>>,
}

impl Wakeups {
    /// Registers a waiter, until its drop.
    pub(in crate::lock) fn register(self: &Arc<Self>, key: &Arc<str>) -> Waiter {
        let woken = Arc::new(Notify::new());
        self.waiters()
            .entry(Arc::clone(key))
            .or_insert_with(|| Vec::with_capacity(1))
            .push(Arc::clone(&woken));
        Waiter { wakeups: Arc::clone(self), key: Arc::clone(key), woken }
    }

    /// Wakes those who wait for this key.
    pub(in crate::lock) fn wake(&self, key: &str) {
        self.waiters().get(key).into_iter().flatten().for_each(|waiter| waiter.notify_one());
    }

    /// Wakes all: a release may have been missed.
    pub(in crate::lock) fn wake_all(&self) {
        self.waiters().values().flatten().for_each(|waiter| waiter.notify_one());
    }

    fn waiters(&self) -> MutexGuard<'_, HashMap<Arc<str>, Vec<Arc<Notify>>>> {
        self.waiters.lock().expect("nothing panics while it holds this")
    }
}

/// Someone who waits for a key.
pub(in crate::lock) struct Waiter {
    wakeups: Arc<Wakeups>,
    key: Arc<str>,
    woken: Arc<Notify>,
}

impl Waiter {
    /// Returns when the key may have become free since the last time, or since the registration.
    pub(in crate::lock) async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiters = self.wakeups.waiters();
        let Some(of_key) = waiters.get_mut(&self.key) else { return };
        of_key.retain(|waiter| !Arc::ptr_eq(waiter, &self.woken));
        if of_key.is_empty() {
            waiters.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_woken(waiter: &Waiter) -> bool {
        use std::pin::pin;
        use std::task::{Context, Waker};

        pin!(waiter.woken()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn wakes_the_waiters_of_the_key_once_and_none_of_another() {
        let wakeups = Arc::new(Wakeups::default());
        let (a, b) = ("a".into(), "b".into());
        let waiters = [wakeups.register(&a), wakeups.register(&a), wakeups.register(&b)];
        wakeups.wake("a");
        assert_eq!([0, 1, 2].map(|i| is_woken(&waiters[i])), [true, true, false]);
        assert_eq!([0, 1, 2].map(|i| is_woken(&waiters[i])), [false; 3]);
        wakeups.wake_all();
        assert_eq!([0, 1, 2].map(|i| is_woken(&waiters[i])), [true; 3]);
    }

    #[test]
    fn forgets_a_key_with_its_last_waiter() {
        let wakeups = Arc::new(Wakeups::default());
        let key = "a".into();
        let (first, last) = (wakeups.register(&key), wakeups.register(&key));
        drop(first);
        wakeups.wake("a");
        assert!(is_woken(&last));
        drop(last);
        assert!(wakeups.waiters().is_empty());
        wakeups.wake("a");
    }
}
