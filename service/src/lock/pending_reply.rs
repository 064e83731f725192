//! Since when a backend's reply has been pending: what distinguishes a lock that others hold from a backend
//! that is gone.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// A backend whose reply has been pending for so long is taken for gone. Backends reply in a few
/// milliseconds.
const SUSPICIOUS: Duration = Duration::from_millis(500);

/// The reply that one attempt waits for.
#[derive(Debug, Default)]
pub(super) struct PendingReply(Mutex<Option<Instant>>);

impl PendingReply {
    /// Awaits a reply of the backend.
    pub(super) async fn during<T>(&self, reply: impl Future<Output = T>) -> T {
        *self.since() = Some(Instant::now());
        let reply = reply.await;
        *self.since() = None;
        reply
    }

    /// For how long a reply has been pending, if that is too long. To be asked after whoever waited for it
    /// has given up.
    pub(super) fn is_suspicious(&self) -> Option<Duration> {
        let pending = self.since().map(|since| since.elapsed());
        pending.filter(|pending| *pending >= SUSPICIOUS)
    }

    fn since(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.lock().expect("nothing panics while it holds this")
    }
}
