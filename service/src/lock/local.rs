//! A lock inside one process: right on one server, and no lock at all between two.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::pending::Pending;
use super::{Acquire, Census, Hold, Holder, Lease, Lock, LockError, Mode};

/// One read-write lock for each key. Tokio's is fair: first come first served, readers together.
///
/// Its leases have no fencing token: there is nobody above the processes who could count.
#[derive(Debug, Default)]
pub struct LocalLock {
    keys: Mutex<HashMap<String, Entry>>,
}

#[async_trait]
impl Lock for LocalLock {
    fn begin(&self, key: &str, mode: Mode) -> Box<dyn Acquire> {
        let entry = self.of(key);
        let acquisition = async move {
            let _waiting = Waiting::begin(&entry.waiting);
            let hold: Box<dyn Hold> = match mode {
                Mode::Exclusive => Box::new(Exclusive(entry.lock.write_owned().await)),
                Mode::Shared => Box::new(Shared(entry.lock.read_owned().await)),
            };
            Ok(Lease::unlimited(Some(hold)))
        };
        Box::new(Pending::new(acquisition, || LockError::Timeout))
    }

    async fn ping(&self) -> Result<(), LockError> {
        Ok(())
    }

    async fn census(&self, key: &str) -> Result<Census, LockError> {
        let Entry { lock, waiting } = self.of(key);
        let held = |mode| Holder { key: key.into(), mode, token: None, replica: None, expired: false };
        let holder = if lock.try_read().is_err() {
            Some(held(Mode::Exclusive))
        } else if lock.try_write().is_err() {
            Some(held(Mode::Shared))
        } else {
            None
        };
        Ok(Census { holders: holder.into_iter().collect(), waiting: waiting.load(Ordering::Relaxed) })
    }

    async fn shutdown(&self) {}
}

impl LocalLock {
    fn of(&self, key: &str) -> Entry {
        let mut keys = self.keys.lock().expect("nothing panics while it holds this");
        match keys.get(key) {
            Some(entry) => entry.clone(),
            None => keys.entry(key.into()).or_default().clone(),
        }
    }
}

/// The lock of one key, and how many wait for it.
#[derive(Debug, Clone, Default)]
struct Entry {
    lock: Arc<RwLock<()>>,
    waiting: Arc<AtomicU64>,
}

/// Counts as waiting until it is dropped.
struct Waiting(Arc<AtomicU64>);

impl Waiting {
    fn begin(waiting: &Arc<AtomicU64>) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(waiting))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Exclusive(#[allow(dead_code, reason = "its drop is the release")] OwnedRwLockWriteGuard<()>);

#[async_trait]
impl Hold for Exclusive {
    async fn release(self: Box<Self>) {}
}

struct Shared(#[allow(dead_code, reason = "its drop is the release")] OwnedRwLockReadGuard<()>);

#[async_trait]
impl Hold for Shared {
    async fn release(self: Box<Self>) {}
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at_once, in_one_second};
    use super::*;

    #[tokio::test]
    async fn a_writer_is_alone_and_readers_are_together() {
        let lock = LocalLock::default();
        let writer = lock.acquire("a", Mode::Exclusive, in_one_second()).await.unwrap();
        assert!(matches!(lock.acquire("a", Mode::Shared, at_once()).await, Err(LockError::Timeout)));
        let _other_key = lock.acquire("b", Mode::Exclusive, in_one_second()).await.unwrap();
        drop(writer);
        let _reader = lock.acquire("a", Mode::Shared, in_one_second()).await.unwrap();
        let _beside = lock.acquire("a", Mode::Shared, in_one_second()).await.unwrap();
        assert!(matches!(lock.acquire("a", Mode::Exclusive, at_once()).await, Err(LockError::Timeout)));
    }
}
