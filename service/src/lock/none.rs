//! No lock: every request is granted at once.

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Acquire, Lease, Lock, LockError, LockState, Mode, Waited};

/// The lock of the strategies that have none.
#[derive(Debug)]
pub struct NoLock;

#[async_trait]
impl Lock for NoLock {
    fn begin(&self, _key: &str, _mode: Mode) -> Box<dyn Acquire> {
        Box::new(AtOnce)
    }

    async fn state(&self, _key: &str) -> Result<LockState, LockError> {
        Ok(LockState::default())
    }

    async fn shutdown(&self) {}
}

struct AtOnce;

#[async_trait]
impl Acquire for AtOnce {
    async fn wait(&mut self, _deadline: Instant) -> Waited {
        Waited::Granted(Lease::unlimited(None))
    }
}
