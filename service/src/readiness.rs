//! Whether an order could be taken now: what `/readyz` says.
//!
//! Nobody can know that but by doing it. So it is done, short of selling anything: a write that the store
//! commits, and a lock that is taken and given back.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::lock::{Lock, LockError};
use crate::store::{Store, StoreError};

/// How long the store and the lock have to answer, so that the answer is there within a second.
const WITHIN: Duration = Duration::from_millis(900);

/// For how long an answer is good: many may ask at the same time.
const FRESH: Duration = Duration::from_millis(100);

/// Says whether an order could be taken.
pub struct Readiness {
    store: Arc<dyn Store>,
    lock: Arc<dyn Lock>,
    /// Commits of orders.
    commits: Counter,
    last: Mutex<Option<(Instant, Result<(), NotReady>)>>,
}

/// Why no order could be taken: the part that fails, and how.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub struct NotReady {
    why: String,
    /// Whether it may only have had too much else to do.
    is_late: bool,
}

impl Readiness {
    /// The readiness to sell what is in `store` under `lock`; `commits` counts the orders' commits.
    pub fn new(store: Arc<dyn Store>, lock: Arc<dyn Lock>, commits: Counter) -> Self {
        Self { store, lock, commits, last: Mutex::default() }
    }

    /// Whether an order could be taken. Returns within a second; who asks while another does gets the same
    /// answer.
    pub async fn check(&self) -> Result<(), NotReady> {
        let mut last = self.last.lock().await;
        if let Some((_, found)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return found.clone();
        }
        let before = self.commits.get();
        let found = match self.try_out(Instant::now() + WITHIN).await {
            // It is the orders that it has to do with.
            Err(NotReady { is_late: true, .. }) if self.commits.get() > before => Ok(()),
            found => found,
        };
        *last = Some((Instant::now(), found.clone()));
        found
    }

    /// Commits a write, and takes and gives back a lock.
    pub async fn try_out(&self, deadline: Instant) -> Result<(), NotReady> {
        let no_answer = |what: &str| format!("the {what} did not answer in time");
        let (store, lock) = tokio::join!(
            timeout_at(deadline, self.store.try_commit()),
            timeout_at(deadline, self.lock.try_out(deadline)),
        );
        let not_ready = |why, is_late| Err(NotReady { why, is_late });
        match store {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                return not_ready(error.to_string(), matches!(error, StoreError::Busy(_)));
            }
            Err(_) => return not_ready(no_answer("store"), true),
        }
        match lock {
            Ok(Ok(())) => Ok(()),
            // What is said at the deadline is that nothing had come until then.
            Ok(Err(error @ LockError::Unavailable { .. })) => {
                not_ready(error.to_string(), Instant::now() >= deadline)
            }
            Ok(Err(LockError::Timeout)) | Err(_) => not_ready(no_answer("lock's backend"), true),
        }
    }
}
