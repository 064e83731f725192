//! No lock: everybody has it at once.

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Census, Lease, Lock, LockError, Mode};

/// The lock of the strategies that have none.
#[derive(Debug)]
pub struct NoLock;

#[async_trait]
impl Lock for NoLock {
    async fn acquire(&self, _key: &str, _mode: Mode, _deadline: Instant) -> Result<Lease, LockError> {
        Ok(Lease::unlimited(None))
    }

    async fn ping(&self) -> Result<(), LockError> {
        Ok(())
    }

    async fn census(&self, _key: &str) -> Result<Census, LockError> {
        Ok(Census::default())
    }

    async fn shutdown(&self) {}
}
