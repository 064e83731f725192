//! The least that a backend has to do: `docs/add-a-lock.md` shows it, and a test holds the page against this
//! file.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Attempt, Backend, BackendError, Claim, PLACE_TTL, Step, Wakeups};
use crate::lock::{FencingToken, Holder, LockState, Mode};

/// Locks in the memory of this process; another backend has a server where this has a map.
#[derive(Default)]
struct MemoryBackend {
    locks: Mutex<HashMap<Arc<str>, Queue>>,
    wakeups: Arc<Wakeups>,
}

/// All who have a lock or wait for it, first come first served.
#[derive(Default)]
struct Queue {
    places: Vec<Place>,
    last_token: i64,
}

struct Place {
    claim: Arc<Claim>,
    /// Set when the claim has the lock.
    token: Option<FencingToken>,
    /// When the claim is forgotten, unless it comes back before. `None`: never.
    until: Option<Instant>,
}

impl MemoryBackend {
    fn locks(&self) -> MutexGuard<'_, HashMap<Arc<str>, Queue>> {
        self.locks.lock().expect("nothing panics while it holds this")
    }
}

impl Queue {
    /// Forgets whoever did not come back in time.
    fn expire(&mut self) {
        self.places.retain(|place| place.until.is_none_or(|until| Instant::now() < until));
    }

    fn find(&mut self, owner: Uuid) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| place.claim.owner == owner)
    }

    /// How many the claim has to wait for: all who came before it, but a reader only for writers.
    fn ahead(&self, claim: &Claim) -> usize {
        let before = self.places.iter().take_while(|place| place.claim.owner != claim.owner);
        before.filter(|place| place.claim.mode == Mode::Exclusive || claim.mode == Mode::Exclusive).count()
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    async fn attempt(self: Arc<Self>, claim: Arc<Claim>, _: Step) -> Result<Attempt, BackendError> {
        let mut locks = self.locks();
        let queue = locks.entry(Arc::clone(&claim.key)).or_default();
        queue.expire();
        // It may be there already: every operation may be repeated.
        if queue.find(claim.owner).is_none() {
            queue.places.push(Place { claim: Arc::clone(&claim), token: None, until: None });
        }
        let ahead = queue.ahead(&claim);
        // Only a writer needs a number of its own.
        let token = FencingToken(queue.last_token + i64::from(claim.mode == Mode::Exclusive));
        let place = queue.find(claim.owner).expect("it was put there");
        if ahead > 0 {
            place.until = Some(Instant::now() + PLACE_TTL);
            return Ok(Attempt::Waits { ahead: u32::try_from(ahead).unwrap_or(u32::MAX) });
        }
        place.until = claim.lease.map(|lease| Instant::now() + lease);
        let token = *place.token.get_or_insert(token);
        queue.last_token = queue.last_token.max(token.0);
        Ok(Attempt::Acquired(token, None))
    }

    async fn renew(&self, claims: &[Arc<Claim>]) -> Vec<Result<bool, BackendError>> {
        let mut locks = self.locks();
        let mut renew = |claim: &Arc<Claim>| {
            let queue = locks.entry(Arc::clone(&claim.key)).or_default();
            queue.expire();
            let place = queue.find(claim.owner).filter(|place| place.token.is_some());
            place.map(|place| place.until = claim.lease.map(|lease| Instant::now() + lease)).is_some()
        };
        claims.iter().map(|claim| Ok(renew(claim))).collect()
    }

    async fn release(&self, claim: &Arc<Claim>, _: Option<&str>) -> Result<(), BackendError> {
        if let Some(queue) = self.locks().get_mut(&claim.key) {
            queue.places.retain(|place| place.claim.owner != claim.owner);
        }
        self.wakeups.wake(&claim.key, None);
        Ok(())
    }

    async fn state(&self, key: &str) -> Result<LockState, BackendError> {
        let mut locks = self.locks();
        let Some(queue) = locks.get_mut(key) else { return Ok(LockState::default()) };
        queue.expire();
        let holds = queue.places.iter().filter(|place| place.token.is_some());
        let holders = holds.map(|place| Holder {
            key: key.into(),
            mode: place.claim.mode,
            token: place.token,
            replica: Some(place.claim.holder.to_string()),
            expired: false,
        });
        let waiting = queue.places.iter().filter(|place| place.token.is_none()).count() as u64;
        Ok(LockState { holders: holders.collect(), waiting })
    }

    fn wakeups(&self) -> &Arc<Wakeups> {
        &self.wakeups
    }

    fn pause(&self, _ahead: u32) -> Duration {
        (PLACE_TTL / 2).mul_f64(rand::random_range(0.5..1.0))
    }

    fn name(&self) -> &'static str {
        "memory"
    }

    fn late_write_window(&self) -> Duration {
        Duration::ZERO
    }

    async fn close(&self) {}
}

mod tests {
    use super::*;
    use crate::config::{LeaseTime, StrategyName};
    use crate::lock::leased::LeasedLock;
    use crate::lock::{Lock, LockError};
    use crate::telemetry::Metrics;

    fn lock(backend: &Arc<MemoryBackend>, renews: bool) -> LeasedLock {
        let backend: Arc<dyn Backend> = backend.clone();
        let lease = LeaseTime::For(Duration::from_secs(1));
        LeasedLock::new(backend, lease, renews, "replica", &Metrics::new(StrategyName::None).lock)
    }

    fn after(ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(ms)
    }

    #[tokio::test(start_paused = true)]
    async fn it_excludes_lets_readers_share_and_hands_over() {
        let backend = Arc::default();
        let (one, other) = (lock(&backend, true), lock(&backend, true));
        let writer = one.acquire("key", Mode::Exclusive, after(100)).await.expect("it is free");
        let refused = other.acquire("key", Mode::Shared, after(3_000)).await;
        assert!(matches!(refused, Err(LockError::Timeout)), "the lease is renewed");
        writer.release().await;
        let reader = one.acquire("key", Mode::Shared, after(100)).await.expect("it is free");
        let second = other.acquire("key", Mode::Shared, after(100)).await.expect("readers share");
        assert_eq!(other.state("key").await.expect("the state").holders.len(), 2);
        reader.release().await;
        second.release().await;
        let next = other.acquire("key", Mode::Exclusive, after(100)).await.expect("it is free");
        assert_eq!(next.token(), Some(FencingToken(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_does_not_renew_loses_it_before_the_next_has_it() {
        let backend = Arc::default();
        let (one, other) = (lock(&backend, false), lock(&backend, true));
        let lost = one.acquire("key", Mode::Exclusive, after(100)).await.expect("it is free");
        let next = other.acquire("key", Mode::Exclusive, after(2_000)).await.expect("the lease ends");
        assert!(lost.check().is_err());
        assert!(next.token() > lost.token());
    }

    #[test]
    fn the_page_shows_this_file() {
        let (page, file) = (include_str!("../../../docs/add-a-lock.md"), include_str!("example.rs"));
        let (backend, _tests) = file.split_once("\nmod tests {").expect("they come last");
        let (_docs, code) = backend.split_once("\n\n").expect("what it is for comes first");
        assert!(page.contains(code.trim()), "docs/add-a-lock.md does not show the example as it is");
    }
}
