//! Whether a backend owes an answer: what tells a lock that is held by others from a backend that is gone.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// A backend that has owed an answer for so long is taken for gone. Backends answer in a few milliseconds.
const SUSPICIOUS: Duration = Duration::from_millis(500);

/// What one attempt waits for from its backend.
#[derive(Debug, Default)]
pub(super) struct Silence(Mutex<Option<Instant>>);

impl Silence {
    /// Awaits an answer of the backend.
    pub(super) async fn during<T>(&self, answer: impl Future<Output = T>) -> T {
        *self.since() = Some(Instant::now());
        let answer = answer.await;
        *self.since() = None;
        answer
    }

    /// For how long the backend has owed an answer, if that is too long. To be asked after whoever waited for it has
    /// given up.
    pub(super) fn is_suspicious(&self) -> Option<Duration> {
        let silent = self.since().map(|since| since.elapsed());
        silent.filter(|silent| *silent >= SUSPICIOUS)
    }

    fn since(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.lock().expect("nothing panics while it holds this")
    }
}
