//! The renewal of a lease, for as long as it is held.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Backend, Claim};
use crate::lock::Validity;

/// Until when a lease that was asked for at `asked` is good: less than the backend will wait, by what two
/// clocks may drift apart and a thread may be late.
pub(super) fn valid_until(asked: Instant, lease: Duration) -> Instant {
    asked + (lease - lease / 100).saturating_sub(Duration::from_millis(2))
}

/// A task that renews; its drop stops it.
pub(super) struct Renewal {
    task: JoinHandle<()>,
}

impl Renewal {
    /// Renews the claim's lease three times in its length, until it is another's or cannot be renewed in time; then
    /// declares the lease lost.
    pub(super) fn start(
        backend: Arc<dyn Backend>,
        claim: Claim,
        lease: Duration,
        validity: &Validity,
        renewals: Counter,
    ) -> Self {
        let validity = validity.clone();
        let task = tokio::spawn(async move {
            let mut next = Instant::now() + lease / 3;
            while let Some(end) = validity.end() {
                sleep_until(next).await;
                let sent = Instant::now();
                next = match timeout_at(end, backend.renew(&claim, lease)).await {
                    Ok(Ok(true)) => {
                        validity.extend(valid_until(sent, lease));
                        renewals.inc();
                        sent + lease / 3
                    }
                    Ok(Ok(false)) | Err(_) => break,
                    // The next try is soon: this one's fate is not known and the lease still runs.
                    Ok(Err(_)) if sent < end => Instant::now() + lease / 20,
                    Ok(Err(_)) => break,
                };
            }
            validity.lose();
        });
        Self { task }
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.task.abort();
    }
}
