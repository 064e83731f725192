//! A lock inside one process. Between two processes it excludes nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::pending_acquire::PendingAcquire;
use super::{Acquire, Hold, Holder, Lease, Lock, LockError, LockState, Mode, Note};

/// One read-write lock for each key. Tokio's is fair: first come first served, readers together.
///
/// Its leases have no fencing token: no counter is shared by all processes.
#[derive(Debug, Default)]
pub struct LocalLock {
    keys: Arc<KeyTable>,
}

/// The keys that are locked or waited for.
type KeyTable = Mutex<HashMap<Arc<str>, Arc<KeyLock>>>;

#[async_trait]
impl Lock for LocalLock {
    fn begin(&self, key: &str, mode: Mode) -> Box<dyn Acquire> {
        let used = KeyInUse::begin(&self.keys, key);
        let acquisition = async move {
            let waiting = WaiterCount::begin(&used.entry.waiting);
            let lock = Arc::clone(&used.entry.lock);
            let guard = match mode {
                Mode::Exclusive => RwLockGuard::Exclusive(lock.write_owned().await),
                Mode::Shared => RwLockGuard::Shared(lock.read_owned().await),
            };
            drop(waiting);
            Ok(Lease::unlimited(Some(Box::new(LocalHold { _guard: guard, _used: used }))))
        };
        Box::new(PendingAcquire::new(acquisition, || LockError::Timeout))
    }

    async fn state(&self, key: &str) -> Result<LockState, LockError> {
        let used = KeyInUse::begin(&self.keys, key);
        let KeyLock { lock, waiting, .. } = &*used.entry;
        let held = |mode| Holder { key: key.into(), mode, token: None, replica: None, expired: false };
        let holder = if lock.try_read().is_err() {
            Some(held(Mode::Exclusive))
        } else if lock.try_write().is_err() {
            Some(held(Mode::Shared))
        } else {
            None
        };
        Ok(LockState { holders: holder.into_iter().collect(), waiting: waiting.load(Ordering::Relaxed) })
    }

    async fn shutdown(&self) {}
}

/// The lock of one key, and how many wait for it.
#[derive(Debug, Default)]
struct KeyLock {
    lock: Arc<RwLock<()>>,
    waiting: Arc<AtomicU64>,
    /// Changed under the table's mutex only.
    users: AtomicU64,
}

/// Counts as waiting until it is dropped.
struct WaiterCount(Arc<AtomicU64>);

impl WaiterCount {
    fn begin(waiting: &Arc<AtomicU64>) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(waiting))
    }
}

impl Drop for WaiterCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A key in use. The last of its users removes it.
struct KeyInUse {
    keys: Arc<KeyTable>,
    key: Arc<str>,
    entry: Arc<KeyLock>,
}

impl KeyInUse {
    fn begin(keys: &Arc<KeyTable>, key: &str) -> Self {
        let mut known = keys.lock().expect("nothing panics while it holds this");
        let (key, entry) = match known.get_key_value(key) {
            Some((key, entry)) => (Arc::clone(key), Arc::clone(entry)),
            None => {
                let key: Arc<str> = key.into();
                (Arc::clone(&key), Arc::clone(known.entry(key).or_default()))
            }
        };
        entry.users.fetch_add(1, Ordering::Relaxed);
        Self { keys: Arc::clone(keys), key, entry }
    }
}

impl Drop for KeyInUse {
    fn drop(&mut self) {
        let mut known = self.keys.lock().expect("nothing panics while it holds this");
        if self.entry.users.fetch_sub(1, Ordering::Relaxed) == 1 {
            known.remove(&self.key);
        }
    }
}

/// The lock that is held; its drop is the release.
struct LocalHold {
    /// Before the key: what is removed is not locked.
    _guard: RwLockGuard,
    _used: KeyInUse,
}

enum RwLockGuard {
    Exclusive(#[allow(dead_code, reason = "its drop is the release")] OwnedRwLockWriteGuard<()>),
    Shared(#[allow(dead_code, reason = "its drop is the release")] OwnedRwLockReadGuard<()>),
}

#[async_trait]
impl Hold for LocalHold {
    async fn release(self: Box<Self>, _: Option<Note>) {}
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

    #[tokio::test]
    async fn a_key_that_is_not_used_any_more_is_forgotten() {
        let lock = LocalLock::default();
        let held = lock.acquire("a", Mode::Exclusive, in_one_second()).await.unwrap();
        assert!(lock.acquire("a", Mode::Exclusive, at_once()).await.is_err());
        assert_eq!(lock.state("a").await.unwrap().holders.len(), 1);
        held.release().await;
        assert!(lock.keys.lock().unwrap().is_empty());
    }
}
