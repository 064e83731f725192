//! The spans of traced requests under one lock hold: how long each was in the queue, waited for the lock, and
//! was committed; and the hold, which is of all of them.

use std::sync::Arc;

use tokio::time::Instant;

use super::ticket::QueuedChange;
use crate::telemetry::tracer::{ActiveSpan, Attribute};

/// A hold of a lock, and the traced requests that it has served. Its drop ends the hold.
pub(super) struct HoldTrace {
    asked: Instant,
    granted: Instant,
    served: Vec<Arc<ActiveSpan>>,
}

impl HoldTrace {
    /// A hold that was asked for then, and is granted now.
    pub(super) fn granted(asked: Instant) -> Self {
        Self { asked, granted: Instant::now(), served: Vec::new() }
    }

    /// Adds the spans of a batch that was taken from the queue then. `commit` is from when to when it was
    /// written, if it was.
    pub(super) fn served(
        &mut self,
        batch: &[QueuedChange],
        taken: Instant,
        commit: Option<(Instant, Instant)>,
    ) {
        for change in batch {
            let Some(request) = &change.trace else { continue };
            request.child("queue", (change.since, taken), Vec::new());
            // Whoever comes while the lock is held has not waited for it.
            let asked = self.asked.max(change.since);
            if asked < self.granted {
                request.child("lock wait", (asked, self.granted), Vec::new());
            }
            if let Some(commit) = commit {
                let size = ("stocklock.batch_size", Attribute::from(batch.len()));
                request.child("commit", commit, vec![size]);
            }
            self.served.push(Arc::clone(request));
        }
    }
}

impl Drop for HoldTrace {
    fn drop(&mut self) {
        let hold = (self.granted, Instant::now());
        self.served.iter().for_each(|request| request.child("hold", hold, Vec::new()));
    }
}
