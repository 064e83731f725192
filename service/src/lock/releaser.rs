//! The release of what an attempt or a lease leaves behind: at once, where its owner waits for that, or else
//! by a task, one for each lock.
//!
//! What is left behind differs with the backend, and is a [`Release`]; that it is seen to whatever becomes of
//! its owner is the part of the [`PendingRelease`] and the [`Releaser`].

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How long one release may take that is waited for. In the background, it may be more.
pub(super) const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause after the first failure, which doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause between two releases of the same thing.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// What an attempt or a lease leaves behind in the backend, or may have.
#[async_trait]
pub(super) trait Release: Send + Sync + 'static {
    /// Why a release failed.
    type Error: fmt::Display + Send;

    /// Releases, in one go. May be repeated, and may be dropped half way. `note` is for the next exclusive
    /// holder, where the backend keeps notes.
    async fn release(&self, note: Option<&str>) -> Result<(), Self::Error>;

    /// Does in the background what the owner has not: [releases until it is done](until_released), after and
    /// before whatever else the backend requires.
    async fn finish(self);
}

/// Why a release was given up.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReleaseError<E> {
    /// The backend failed.
    #[error("{0}")]
    Failed(E),
    /// The backend did not answer.
    #[error("no answer in time")]
    TimedOut,
}

/// Releases until it is done, each time for as long as `limit` at the most. `gives_up` is asked after a
/// failure whether to leave it at that; it is given the time at which the release would be tried again.
pub(super) async fn until_released<R: Release>(
    release: &R,
    limit: Duration,
    gives_up: impl Fn(&ReleaseError<R::Error>, Instant) -> bool + Send,
) -> Result<(), ReleaseError<R::Error>> {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match timeout(limit, release.release(None)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => ReleaseError::Failed(error),
            Err(_) => ReleaseError::TimedOut,
        };
        if gives_up(&error, Instant::now() + pause) {
            return Err(error);
        }
        sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// The task that releases what was left behind; it lives for as long as the lock and its pending releases.
pub(super) struct Releaser {
    jobs: mpsc::UnboundedSender<ReleaserJob>,
}

enum ReleaserJob {
    /// Drives a release to its end.
    Finish(Finishing),
    /// Says when all that came before is released.
    Flush(oneshot::Sender<()>),
}

type Finishing = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Releaser {
    /// Starts the task.
    pub(super) fn start() -> Self {
        let (jobs, mut received) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            // Concurrently: one that hangs must not keep the others from being released.
            let mut releases = JoinSet::new();
            while let Some(job) = received.recv().await {
                while releases.try_join_next().is_some() {}
                match job {
                    ReleaserJob::Finish(finishing) => drop(releases.spawn(finishing)),
                    ReleaserJob::Flush(done) => {
                        while releases.join_next().await.is_some() {}
                        done.send(()).ok();
                    }
                }
            }
            // The lock is gone; what it has left behind is not.
            releases.join_all().await;
        });
        Self { jobs }
    }

    /// Sees to `release`, whatever becomes of its owner.
    pub(super) fn pending<R: Release>(&self, release: R) -> PendingRelease<R> {
        PendingRelease { release: Some(release), jobs: self.jobs.clone() }
    }

    /// Waits until all that was left behind until now is released, or given up.
    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.jobs.send(ReleaserJob::Flush(done)).is_ok() {
            // An error says that the task is gone, and with it what it had to do.
            flushed.await.ok();
        }
    }
}

/// A release that is still to come: made [at once](Self::now), or by the [`Releaser`] after a drop.
pub(super) struct PendingRelease<R: Release> {
    /// `None` when there is nothing left to do.
    release: Option<R>,
    jobs: mpsc::UnboundedSender<ReleaserJob>,
}

impl<R: Release> PendingRelease<R> {
    /// What is to be released, to note what is learnt about it.
    pub(super) fn get_mut(&mut self) -> &mut R {
        self.release.as_mut().expect("there is something to release until it is released")
    }

    /// Releases and waits for it, for a second at the most; what fails is left to the releaser.
    pub(super) async fn now(mut self, note: Option<&str>) {
        let release = self.get_mut();
        if matches!(timeout(RELEASE_TIMEOUT, release.release(note)).await, Ok(Ok(()))) {
            self.release = None;
        }
    }
}

impl<R: Release> Drop for PendingRelease<R> {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            // An error says that the process is about to end. What is left ends with its lease, or its
            // session.
            self.jobs.send(ReleaserJob::Finish(release.finish())).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Notes each release that is tried, and fails so many of them.
    struct Flaky {
        tried: Arc<Mutex<Vec<Option<String>>>>,
        failures: usize,
    }

    #[async_trait]
    impl Release for Flaky {
        type Error = &'static str;

        async fn release(&self, note: Option<&str>) -> Result<(), Self::Error> {
            let mut tried = self.tried.lock().unwrap();
            tried.push(note.map(str::to_owned));
            if tried.len() > self.failures { Ok(()) } else { Err("not yet") }
        }

        async fn finish(self) {
            let in_time = Instant::now() + MAX_PAUSE;
            until_released(&self, RELEASE_TIMEOUT, |_, next| next > in_time).await.ok();
        }
    }

    async fn tried(failures: usize, note: Option<&str>) -> Vec<Option<String>> {
        let tried = Arc::default();
        let releaser = Releaser::start();
        let pending = releaser.pending(Flaky { tried: Arc::clone(&tried), failures });
        match note {
            Some(_) => pending.now(note).await,
            None => drop(pending),
        }
        releaser.flush().await;
        drop(releaser);
        Arc::into_inner(tried).expect("nothing is left to do").into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn releases_once_where_it_is_waited_for_and_where_it_is_dropped() {
        assert_eq!(tried(0, Some("a note")).await, [Some("a note".to_owned())]);
        assert_eq!(tried(0, None).await, [None]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_released_in_the_background_until_it_is_given_up() {
        assert_eq!(tried(1, Some("a note")).await, [Some("a note".to_owned()), None]);
        // After pauses of 10, 20, 40, 80, 160 and 320 ms; the next one would end after a second.
        assert_eq!(tried(usize::MAX, None).await.len(), 7);
    }
}
