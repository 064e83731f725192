//! Combining: while some work is in flight, all that arrives gathers, and goes together in the next flight.
//!
//! Nothing waits for a flight to fill: a job that comes alone goes alone, at once, and flights grow with the load. The
//! idea is flat combining (Hendler, Incze, Shavit, Tzafrir, 2010), and what databases do as group commit.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;

use tokio_util::task::TaskTracker;

type Flight = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Carries out jobs together.
pub(crate) struct Combiner<J> {
    shared: Arc<Shared<J>>,
}

struct Shared<J> {
    state: Mutex<State<J>>,
    limits: Limits,
    fly: Box<dyn Fn(Vec<J>) -> Flight + Send + Sync>,
    flights: TaskTracker,
}

struct State<J> {
    gathered: VecDeque<J>,
    in_flight: usize,
}

/// How much may be done at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Flights at the same time.
    pub flights: usize,
    /// Jobs in one of them.
    pub jobs: usize,
}

impl<J: Send + 'static> Combiner<J> {
    /// A combiner whose flights are what `fly` makes of their jobs. A flight answers its jobs by itself; it is a task of
    /// its own, and nothing that becomes of those who wait for it ends it.
    pub(crate) fn new<F>(limits: Limits, fly: impl Fn(Vec<J>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shared = Shared {
            state: Mutex::new(State { gathered: VecDeque::new(), in_flight: 0 }),
            limits,
            fly: Box::new(move |jobs| Box::pin(fly(jobs))),
            flights: TaskTracker::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Hands a job over: to the next flight, which begins at once where there may be one more.
    pub(crate) fn submit(&self, job: J) {
        let mut state = self.shared.lock();
        state.gathered.push_back(job);
        if state.in_flight < self.shared.limits.flights {
            state.in_flight += 1;
            drop(state);
            self.shared.flights.spawn(fly(Arc::clone(&self.shared)));
        }
    }

    /// Waits until all that was handed over has come to its end. Nothing may be handed over afterwards.
    pub(crate) async fn close(&self) {
        self.shared.flights.close();
        self.shared.flights.wait().await;
    }
}

/// One flight after the other, until nothing has gathered.
async fn fly<J: Send + 'static>(shared: Arc<Shared<J>>) {
    while let Some(jobs) = shared.next_flight() {
        let mut flight = (shared.fly)(jobs);
        // One that panics takes its own jobs with it, whose callers see that; those who gathered meanwhile go on.
        let landed =
            poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| flight.as_mut().poll(context))) {
                Ok(poll) => poll.map(Ok),
                Err(_) => Poll::Ready(Err(())),
            });
        if landed.await.is_err() {
            tracing::error!("a flight has panicked");
        }
    }
}

impl<J> Shared<J> {
    /// The jobs of the next flight; `None` when there are none, which ends the task that asks.
    fn next_flight(&self) -> Option<Vec<J>> {
        let mut state = self.lock();
        if state.gathered.is_empty() {
            state.in_flight -= 1;
            return None;
        }
        let most = state.gathered.len().min(self.limits.jobs);
        Some(state.gathered.drain(..most).collect())
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().expect("nothing panics while it holds this")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::{Semaphore, mpsc, oneshot};

    use super::*;

    /// Flights that report their jobs and then wait for a permit.
    fn reporting(limits: Limits) -> (Combiner<u32>, mpsc::UnboundedReceiver<Vec<u32>>, Arc<Semaphore>) {
        let (report, reports) = mpsc::unbounded_channel();
        let permits = Arc::new(Semaphore::new(0));
        let wait_for = Arc::clone(&permits);
        let combiner = Combiner::new(limits, move |jobs| {
            let (report, permits) = (report.clone(), Arc::clone(&wait_for));
            async move {
                report.send(jobs).unwrap();
                permits.acquire().await.unwrap().forget();
            }
        });
        (combiner, reports, permits)
    }

    #[tokio::test]
    async fn what_arrives_during_a_flight_goes_together_in_the_next() {
        let (combiner, mut reports, permits) = reporting(Limits { flights: 2, jobs: 3 });
        combiner.submit(1);
        assert_eq!(reports.recv().await, Some(vec![1]));
        combiner.submit(2);
        assert_eq!(reports.recv().await, Some(vec![2]));
        (3..=7).for_each(|job| combiner.submit(job));
        permits.add_permits(1);
        assert_eq!(reports.recv().await, Some(vec![3, 4, 5]));
        permits.add_permits(10);
        assert_eq!(reports.recv().await, Some(vec![6, 7]));
        combiner.close().await;
    }

    #[tokio::test]
    async fn a_flight_that_panics_takes_its_own_jobs_with_it_and_no_others() {
        let flown = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&flown);
        let combiner =
            Combiner::new(Limits { flights: 1, jobs: 1 }, move |jobs: Vec<oneshot::Sender<()>>| {
                let number = count.fetch_add(1, Ordering::Relaxed);
                async move {
                    assert!(number > 0, "the first flight panics");
                    jobs.into_iter().for_each(|job| job.send(()).unwrap());
                }
            });
        let jobs: Vec<_> = (0..3).map(|_| oneshot::channel()).collect();
        let mut answers = Vec::new();
        for (job, answer) in jobs {
            combiner.submit(job);
            answers.push(answer);
        }
        let answered: Vec<_> =
            futures_util::future::join_all(answers).await.iter().map(Result::is_ok).collect();
        assert_eq!(answered, [false, true, true]);
        assert_eq!(flown.load(Ordering::Relaxed), 3);
    }
}
