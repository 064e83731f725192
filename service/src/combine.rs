//! Combining: while some work is in flight, all that arrives gathers, and goes together in the next flight.
//!
//! Nothing waits for a flight to fill: a job that comes alone goes alone, at once, and flights grow with the
//! load. The idea is flat combining (Hendler, Incze, Shavit, Tzafrir, 2010), and what databases do as group
//! commit.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;

use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

type FlightFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Carries out jobs together.
pub(crate) struct Combiner<J> {
    shared: Arc<Inner<J>>,
}

struct Inner<J> {
    state: Mutex<State<J>>,
    limits: FlightLimits,
    fly: Box<dyn Fn(Vec<J>) -> FlightFuture + Send + Sync>,
    flights: TaskTracker,
}

struct State<J> {
    gathered: VecDeque<J>,
    in_flight: usize,
}

/// How much may be done at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlightLimits {
    /// Flights at the same time.
    pub flights: usize,
    /// Jobs in one of them.
    pub jobs: usize,
}

impl<J: Send + 'static> Combiner<J> {
    /// A combiner whose flights are what `fly` makes of their jobs. A flight answers its jobs by itself; it
    /// is a task of its own, and nothing that becomes of those who wait for it ends it.
    pub(crate) fn new<F>(limits: FlightLimits, fly: impl Fn(Vec<J>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shared = Inner {
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
async fn fly<J: Send + 'static>(shared: Arc<Inner<J>>) {
    while let Some(jobs) = shared.next_flight() {
        let mut flight = (shared.fly)(jobs);
        // One that panics takes its own jobs with it, whose callers see that; those who gathered meanwhile go
        // on.
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

impl<J> Inner<J> {
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

/// Jobs that each wait for a result of their own.
pub(crate) struct Requests<J, R, E> {
    jobs: Combiner<(J, Reply<R, E>)>,
}

type Reply<R, E> = oneshot::Sender<Result<R, E>>;

/// The flight of a job ended without a result: it panicked, or the runtime is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was given up half way")]
pub(crate) struct FlightLost;

impl<J, R, E> Requests<J, R, E>
where
    J: Send + 'static,
    R: Send + 'static,
    E: Clone + From<FlightLost> + Send + 'static,
{
    /// Requests whose flights are made by `fly`: it is given at least one job, and returns as many results.
    pub(crate) fn new<F>(limits: FlightLimits, fly: impl Fn(Vec<J>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Vec<R>, E>> + Send + 'static,
    {
        let jobs = Combiner::new(limits, move |requests: Vec<(J, Reply<R, E>)>| {
            let (jobs, replies): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
            let flight = fly(jobs);
            async move { reply(replies, flight.await) }
        });
        Self { jobs }
    }

    /// Carries out a job in the next flight, and waits for its result. The failure of a flight is the failure
    /// of each of its jobs.
    ///
    /// The job is handed over by the call itself: it is carried out even when the future is dropped, or never
    /// polled. Jobs leave in the order of the calls.
    pub(crate) fn submit(&self, job: J) -> impl Future<Output = Result<R, E>> + Send + use<J, R, E> {
        let (reply, result) = oneshot::channel();
        self.jobs.submit((job, reply));
        async move { result.await.unwrap_or_else(|_| Err(FlightLost.into())) }
    }
}

/// Gives each its result. An error says that the caller has gone.
fn reply<R, E: Clone>(replies: Vec<Reply<R, E>>, results: Result<Vec<R>, E>) {
    match results {
        Ok(results) => {
            debug_assert_eq!(results.len(), replies.len(), "a flight returns a result for each job");
            replies.into_iter().zip(results).for_each(|(reply, result)| drop(reply.send(Ok(result))));
        }
        Err(error) => replies.into_iter().for_each(|reply| drop(reply.send(Err(error.clone())))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::{Semaphore, mpsc};
    use tokio::task::JoinSet;

    use super::*;

    /// Flights that report their jobs and then wait for a permit.
    fn reporting(limits: FlightLimits) -> (Combiner<u32>, mpsc::UnboundedReceiver<Vec<u32>>, Arc<Semaphore>) {
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
        let (combiner, mut reports, permits) = reporting(FlightLimits { flights: 2, jobs: 3 });
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

    #[derive(Debug, Clone, PartialEq)]
    struct Failed(&'static str);

    impl From<FlightLost> for Failed {
        fn from(_: FlightLost) -> Self {
            Self("lost")
        }
    }

    type Flights = Arc<Mutex<Vec<Vec<u32>>>>;

    /// A combiner that doubles, a second for each flight; and the jobs of its flights.
    fn doubling(limits: FlightLimits) -> (Requests<u32, u32, Failed>, Flights) {
        let flights = Flights::default();
        let flown = Arc::clone(&flights);
        let combiner = Requests::new(limits, move |jobs: Vec<u32>| {
            flown.lock().unwrap().push(jobs.clone());
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                match jobs.as_slice() {
                    [13, ..] => Err(Failed("unlucky")),
                    [14, ..] => panic!("a flight that panics, on purpose"),
                    jobs => Ok(jobs.iter().map(|job| job * 2).collect()),
                }
            }
        });
        (combiner, flights)
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_flights_are_under_way_as_are_allowed() {
        let (combiner, flights) = doubling(FlightLimits { flights: 2, jobs: 10 });
        let mut jobs = JoinSet::new();
        for job in 0..10 {
            jobs.spawn(combiner.submit(job));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(*flights.lock().unwrap(), [vec![0], vec![1]]);
        jobs.join_all().await;
        assert_eq!(flights.lock().unwrap().concat(), (0..10).collect::<Vec<_>>());
        assert_eq!(combiner.jobs.shared.lock().in_flight, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_whose_caller_has_gone_is_carried_out() {
        let (combiner, flights) = doubling(FlightLimits { flights: 1, jobs: 10 });
        drop(combiner.submit(1));
        drop(combiner.submit(2));
        assert_eq!(combiner.submit(3).await, Ok(6));
        assert_eq!(flights.lock().unwrap().concat(), [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flight_that_fails_or_panics_fails_all_its_jobs_and_no_others() {
        for (unlucky, error) in [(13, Failed("unlucky")), (14, Failed("lost"))] {
            let (combiner, _) = doubling(FlightLimits { flights: 1, jobs: 2 });
            let together = [combiner.submit(unlucky), combiner.submit(1)];
            for job in together {
                assert_eq!(job.await, Err(error.clone()));
            }
            assert_eq!(combiner.submit(2).await, Ok(4));
        }
    }
}
