//! Who is to be woken when a lock may have become free.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use uuid::Uuid;

/// The waiters of a process, by key.
///
/// A wake-up is a hint. It is kept for whoever is registered but does not wait at this moment, so that what
/// happens between an attempt and the wait is not missed.
#[derive(Default)]
pub(in crate::lock) struct Wakeups {
    waiters: Mutex<HashMap<Arc<str>, Vec<Woken>>>,
}

/// Whose wait it is, and what ends it.
type Woken = (Uuid, Arc<Notify>);

impl Wakeups {
    /// Registers the wait of an owner, until its drop.
    pub(in crate::lock) fn register(self: &Arc<Self>, key: &Arc<str>, owner: Uuid) -> Waiter {
        let woken = Arc::new(Notify::new());
        self.waiters()
            .entry(Arc::clone(key))
            .or_insert_with(|| Vec::with_capacity(1))
            .push((owner, Arc::clone(&woken)));
        Waiter { wakeups: Arc::clone(self), key: Arc::clone(key), woken }
    }

    /// Wakes whom an announcement names: "OWNER KEY" is for one of those who wait for the key, " KEY" for all
    /// of them, and an empty one, of an older version, for all that wait for anything.
    pub(in crate::lock) fn announced(&self, announcement: &str) {
        match announcement.split_once(' ') {
            Some((owner, key)) => self.wake(key, owner.parse().ok()),
            None if announcement.is_empty() => self.wake_all(),
            None => self.wake(announcement, None),
        }
    }

    /// Wakes this owner, or all who wait for the key.
    pub(in crate::lock) fn wake(&self, key: &str, owner: Option<Uuid>) {
        for (waiting, woken) in self.waiters().get(key).into_iter().flatten() {
            if owner.is_none_or(|owner| owner == *waiting) {
                woken.notify_one();
            }
        }
    }

    /// Wakes all: a release may have been missed.
    pub(in crate::lock) fn wake_all(&self) {
        self.waiters().values().flatten().for_each(|(_, woken)| woken.notify_one());
    }

    fn waiters(&self) -> MutexGuard<'_, HashMap<Arc<str>, Vec<Woken>>> {
        self.waiters.lock().expect("nothing panics while it holds this")
    }
}

/// The wait of one owner for a key; its drop ends the registration.
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
        of_key.retain(|(_, woken)| !Arc::ptr_eq(woken, &self.woken));
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
    fn wakes_whom_an_announcement_names_once() {
        let wakeups = Arc::new(Wakeups::default());
        let (a, b) = ("a".into(), "b".into());
        let [one, other, stranger] = [1, 2, 3].map(Uuid::from_u128);
        let waiters =
            [wakeups.register(&a, one), wakeups.register(&a, other), wakeups.register(&b, stranger)];
        let announced = |announcement: &str| {
            wakeups.announced(announcement);
            [0, 1, 2].map(|i| is_woken(&waiters[i]))
        };
        assert_eq!(announced(&format!("{other} a")), [false, true, false]);
        assert_eq!(announced(&format!("{stranger} a")), [false; 3]);
        assert_eq!(announced(" a"), [true, true, false]);
        assert_eq!(announced("b"), [false, false, true]);
        assert_eq!(announced("c"), [false; 3]);
        assert_eq!(announced(""), [true; 3]);
    }

    #[test]
    fn forgets_a_key_with_its_last_waiter() {
        let wakeups = Arc::new(Wakeups::default());
        let key = "a".into();
        let (first, last) = (wakeups.register(&key, Uuid::nil()), wakeups.register(&key, Uuid::max()));
        drop(first);
        wakeups.wake("a", None);
        assert!(is_woken(&last));
        drop(last);
        assert!(wakeups.waiters().is_empty());
        wakeups.wake("a", None);
    }
}
