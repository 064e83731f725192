//! Flat combining (Hendler, Incze, Shavit, Tzafrir: "Flat combining and the synchronization-parallelism tradeoff",
//! 2010), for round trips: while one is under way, the jobs that arrive gather, and go together in the next.
//!
//! There is no timer: a job that finds no flight under way leaves at once, alone; the busier the backend, the more
//! jobs share a flight.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

/// What a flight returns: the result of each job, in their order, or why there are none.
pub(crate) type Flight<R, E> = Pin<Box<dyn Future<Output = Result<Vec<R>, E>> + Send>>;

/// How many jobs go at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Flights under way at the same time.
    pub(crate) flights: usize,
    /// Jobs in one flight.
    pub(crate) jobs: usize,
}

/// A combiner of jobs `J` with results `R`, whose flights fail with `E`. Clones share their flights.
pub(crate) struct Combiner<J, R, E> {
    shared: Arc<Shared<J, R, E>>,
}

struct Shared<J, R, E> {
    fly: Box<dyn Fn(Vec<J>) -> Flight<R, E> + Send + Sync>,
    limits: Limits,
    gathered: Mutex<Gathered<J, R, E>>,
}

/// The jobs that wait for the next flight, and how many flights are under way.
struct Gathered<J, R, E> {
    jobs: VecDeque<(J, Reply<R, E>)>,
    flights: usize,
}

type Reply<R, E> = oneshot::Sender<Result<R, E>>;

/// The jobs of one flight, and where their results go.
type Departing<J, R, E> = (Vec<J>, Vec<Reply<R, E>>);

/// The flight of a job ended without a result: it panicked, or the runtime is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was given up half way")]
pub(crate) struct FlightLost;

impl<J, R, E> Combiner<J, R, E>
where
    J: Send + 'static,
    R: Send + 'static,
    E: Clone + From<FlightLost> + Send + 'static,
{
    /// A combiner whose flights are made by `fly`: it is given at least one job, and returns as many results.
    pub(crate) fn new(limits: Limits, fly: impl Fn(Vec<J>) -> Flight<R, E> + Send + Sync + 'static) -> Self {
        let gathered = Mutex::new(Gathered { jobs: VecDeque::new(), flights: 0 });
        Self { shared: Arc::new(Shared { fly: Box::new(fly), limits, gathered }) }
    }

    /// Carries out a job in the next flight, and waits for its result. The failure of a flight is the failure of each
    /// of its jobs.
    ///
    /// The job is handed over by the call itself: it is carried out even when the future is dropped, or never polled.
    /// Jobs leave in the order of the calls.
    pub(crate) fn submit(&self, job: J) -> impl Future<Output = Result<R, E>> + Send + use<J, R, E> {
        let (reply, result) = oneshot::channel();
        let departs = {
            let mut gathered = self.shared.gathered();
            gathered.jobs.push_back((job, reply));
            let departs = gathered.flights < self.shared.limits.flights;
            gathered.flights += usize::from(departs);
            departs
        };
        if departs {
            tokio::spawn(Arc::clone(&self.shared).fly_until_none_waits());
        }
        async move { result.await.unwrap_or_else(|_| Err(FlightLost.into())) }
    }
}

impl<J, R, E> Shared<J, R, E>
where
    E: Clone + From<FlightLost>,
{
    async fn fly_until_none_waits(self: Arc<Self>) {
        // Also when a flight panics: the next job must find that there is none.
        let mut landing = Landing { shared: &self, landed: false };
        while let Some((jobs, replies)) = landing.next() {
            match (self.fly)(jobs).await {
                Ok(results) => {
                    debug_assert_eq!(results.len(), replies.len(), "a flight returns a result for each job");
                    for (reply, result) in replies.into_iter().zip(results) {
                        // An error says that the caller has gone.
                        reply.send(Ok(result)).ok();
                    }
                }
                Err(error) => {
                    for reply in replies {
                        reply.send(Err(error.clone())).ok();
                    }
                }
            }
        }
    }
}

impl<J, R, E> Shared<J, R, E> {
    fn gathered(&self) -> MutexGuard<'_, Gathered<J, R, E>> {
        self.gathered.lock().expect("nothing panics while it holds this")
    }
}

/// A series of flights; its drop makes room for another.
struct Landing<'a, J, R, E> {
    shared: &'a Shared<J, R, E>,
    landed: bool,
}

impl<J, R, E> Landing<'_, J, R, E> {
    /// The jobs of the next flight; `None` when none waits, which ends the series in the same moment.
    fn next(&mut self) -> Option<Departing<J, R, E>> {
        let mut gathered = self.shared.gathered();
        if gathered.jobs.is_empty() {
            gathered.flights -= 1;
            self.landed = true;
            return None;
        }
        let jobs = gathered.jobs.len().min(self.shared.limits.jobs);
        Some(gathered.jobs.drain(..jobs).unzip())
    }
}

impl<J, R, E> Drop for Landing<'_, J, R, E> {
    fn drop(&mut self) {
        if self.landed {
            return;
        }
        let mut gathered = self.shared.gathered();
        gathered.flights -= 1;
        if gathered.flights == 0 {
            // None is left to take them. Their callers learn it, and may try again.
            gathered.jobs.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::JoinSet;

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Failed(&'static str);

    impl From<FlightLost> for Failed {
        fn from(_: FlightLost) -> Self {
            Self("lost")
        }
    }

    type Flights = Arc<Mutex<Vec<Vec<u32>>>>;

    /// A combiner that doubles, a second for each flight; and the jobs of its flights.
    fn doubling(limits: Limits) -> (Combiner<u32, u32, Failed>, Flights) {
        let flights = Flights::default();
        let flown = Arc::clone(&flights);
        let combiner = Combiner::new(limits, move |jobs: Vec<u32>| {
            flown.lock().unwrap().push(jobs.clone());
            Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                match jobs.as_slice() {
                    [13, ..] => Err(Failed("unlucky")),
                    [14, ..] => panic!("a flight that panics, on purpose"),
                    jobs => Ok(jobs.iter().map(|job| job * 2).collect()),
                }
            })
        });
        (combiner, flights)
    }

    #[tokio::test(start_paused = true)]
    async fn what_arrives_during_a_flight_goes_together_in_the_next() {
        let (combiner, flights) = doubling(Limits { flights: 1, jobs: 3 });
        let first = combiner.submit(0);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let others: Vec<_> = (1..=5).map(|job| combiner.submit(job)).collect();
        assert_eq!(first.await, Ok(0));
        for (job, other) in (1..=5).zip(others) {
            assert_eq!(other.await, Ok(job * 2));
        }
        assert_eq!(*flights.lock().unwrap(), [vec![0], vec![1, 2, 3], vec![4, 5]]);
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_flights_are_under_way_as_are_allowed() {
        let (combiner, flights) = doubling(Limits { flights: 2, jobs: 10 });
        let mut jobs = JoinSet::new();
        for job in 0..10 {
            jobs.spawn(combiner.submit(job));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(*flights.lock().unwrap(), [vec![0], vec![1]]);
        jobs.join_all().await;
        assert_eq!(flights.lock().unwrap().concat(), (0..10).collect::<Vec<_>>());
        assert_eq!(combiner.shared.gathered().flights, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_whose_caller_has_gone_is_carried_out() {
        let (combiner, flights) = doubling(Limits { flights: 1, jobs: 10 });
        drop(combiner.submit(1));
        drop(combiner.submit(2));
        assert_eq!(combiner.submit(3).await, Ok(6));
        assert_eq!(flights.lock().unwrap().concat(), [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flight_that_fails_or_panics_fails_all_its_jobs_and_no_others() {
        for (unlucky, error) in [(13, Failed("unlucky")), (14, Failed("lost"))] {
            let (combiner, _) = doubling(Limits { flights: 1, jobs: 2 });
            let together = [combiner.submit(unlucky), combiner.submit(1)];
            for job in together {
                assert_eq!(job.await, Err(error.clone()));
            }
            assert_eq!(combiner.submit(2).await, Ok(4));
        }
    }
}
