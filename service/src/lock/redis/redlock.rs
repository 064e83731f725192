//! The lock of a majority of Redis servers that know nothing of each other: Redlock.
//!
//! The algorithm is that of Redis' documentation ("Distributed Locks with Redis",
//! <https://redis.io/docs/latest/develop/use/patterns/distributed-locks/>): all servers are asked at the
//! same time, each with a short time-out; whoever has more than half of them before its lease would be over
//! has the lock, for what is left of the lease but for the drift of clocks; whoever has not gives back what
//! it got and tries again after a random pause; and all servers are asked to release, also those whose reply
//! was lost. So two of five may be gone.
//!
//! What it cannot do is known. M. Kleppmann ("How to do distributed locking", 2016): it relies on clocks,
//! and a holder that stands still past its lease writes all the same, which only a fencing token or a
//! comparison at the store can refuse. S. Sanfilippo ("Is Redlock safe?", 2016) answers that the clocks need
//! only count about the same time, and that a server that has forgotten its locks has to stay away for as
//! long as the longest lease. The experiment `redis-redlock` tries both. Here the guard is what the stock
//! relies on, as under every lock with a lease; and beyond the algorithm there are:
//!
//! - **Fencing tokens.** Each server counts for each key. A token is the greatest count of a majority, and
//!   a majority knows it before the lock counts as acquired; two majorities have a server in common, so it
//!   grows. A server that was started anew, whatever data it came back with, counts for nothing until it
//!   has been told; where fewer than a majority remember, a new generation begins, which is kept with the
//!   orders.
//! - **A queue.** Each server keeps those who wait in the order of their tickets: the greatest place that a
//!   majority gave. Servers that hear of claims in a different order come to agree, so that votes are not
//!   split for long. It is first come, first served only as far as the servers are heard: nothing is
//!   promised where some are not.
//! - **Servers that do not answer** are left out until they do: nothing waits for them twice.
//! - Other servers are another lock: replicas that are configured with different ones, as in a rolling
//!   change, do not keep each other out, and their tokens cannot be compared.
//! - There are no notes. On a server that did not take part in the next hold one would outlive it.

mod bells;
mod claims;
mod node;
mod round;
mod tally;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::ConnectionInfo;
use prometheus_client::metrics::counter::Counter;
use rand::RngExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::bells::Bells;
use self::claims::{Claims, Traces};
use self::node::{Node, Scripts, is_of_the_configuration};
use self::round::Round;
use self::tally::{Standing, majority, merge};
use super::protocol::{COMMAND, other};
use super::requirements::{self, NAME};
use super::server::Announcement;
use crate::config::ConfigError;
use crate::lock::leased::{Attempt, Backend, BackendError, Claim, Step, Wakeups};
use crate::lock::{ConnectError, FencingToken, Generation, LockError, LockState, Mode, TokenGenerations};

/// How long one server has to answer: a tenth of the lease, within these bounds. Long enough for a busy one,
/// and short enough for another attempt.
const LIMIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));

/// How long a claim goes without the votes of a majority before they are taken for gone.
const UNANSWERED: Duration = Duration::from_millis(700);

/// How long one server has to answer an operator's question.
const QUESTION: Duration = Duration::from_millis(500);

/// What is said of a server that takes longer.
const NO_ANSWER: &str = "no answer in time";

/// How often a new generation of tokens is asked for: another may have begun one in between.
const GENERATIONS: usize = 3;

/// How long the end waits for releases that go on.
const LAST_RELEASES: Duration = Duration::from_millis(500);

/// Servers of which a majority has the lock.
pub(super) struct Redlock {
    nodes: Vec<Arc<Node>>,
    limit: Duration,
    claims: Arc<Claims>,
    wakeups: Arc<Wakeups>,
    generations: Arc<dyn TokenGenerations>,
}

impl Redlock {
    /// Connects to servers, given with their addresses. Fails where a majority cannot be reached, where one
    /// does not let us do what has to be done, and where two are the same.
    pub(super) async fn connect(
        servers: Vec<(String, ConnectionInfo)>,
        lease: Duration,
        generations: Arc<dyn TokenGenerations>,
        round_trips: Counter,
    ) -> Result<Self, ConnectError> {
        let (count, wakeups) = (servers.len(), Arc::new(Wakeups::default()));
        let limit = (lease / 10).clamp(LIMIT.0, LIMIT.1);
        let bells = Arc::new(Bells::new(majority(count), &wakeups));
        let scripts = Arc::new(Scripts::default());
        let mut nodes = Vec::new();
        for (server, (address, info)) in servers.into_iter().enumerate() {
            let bells = Arc::clone(&bells);
            let announced = move |announcement: Announcement<'_>| match announcement {
                Announcement::Released(text) => bells.announced(server, text),
                Announcement::Interrupted => bells.interrupted(),
            };
            let round_trips = round_trips.clone();
            nodes.push(Node::new(address, info, (count, limit), &scripts, round_trips, announced));
        }
        let redlock = Self { nodes, limit, claims: Arc::default(), wakeups, generations };
        redlock.start().await?;
        Ok(redlock)
    }

    async fn start(&self) -> Result<(), ConnectError> {
        let unavailable = |reason| LockError::Unavailable { dependency: NAME, reason };
        let connect = |node: Arc<Node>| async move { timeout(COMMAND, node.server.session()).await };
        let mut started = ask(&self.nodes, connect);
        let (mut names, mut errors) = (HashMap::new(), Vec::new());
        while let Some((node, started)) = started.recv().await {
            let error = match started {
                Ok(Ok(session)) => {
                    if let Err(ConnectError::Config(error)) =
                        requirements::check(&node.address, &session, false).await
                    {
                        return Err(error.into());
                    }
                    let name = Arc::clone(&session.identity.name);
                    if let Some(known) = names.insert(name, node.address.clone()) {
                        let why = format!("{known} and {} are one server: it has one vote", node.address);
                        return Err(ConfigError::new("lock.redis.url", why).into());
                    }
                    continue;
                }
                Ok(Err(error)) if is_of_the_configuration(&error) => {
                    return Err(unavailable(format!("{}: {error}", node.address)).into());
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => NO_ANSWER.into(),
            };
            node.leave_out(&error);
            errors.push(format!("{}: {error}", node.address));
        }
        match names.len() >= self.majority() {
            true => Ok(()),
            false => Err(unavailable(self.no_majority(&errors)).into()),
        }
    }

    fn majority(&self) -> usize {
        majority(self.nodes.len())
    }

    fn no_majority(&self, errors: &[String]) -> String {
        format!("no majority of {} servers: {}", self.nodes.len(), errors.join("; "))
    }

    /// Asks for the lock once, and again where that settles the claim's place.
    async fn vote(&self, claim: &Arc<Claim>, traces: &Arc<Traces>) -> Result<Attempt, BackendError> {
        loop {
            let round = Round::ask(&self.nodes, claim, traces, self.limit).await;
            let heard = round.tally.answered() + round.busy;
            if round.tally.standing() == Standing::Won {
                *traces.unanswered() = None;
                if let Some(token) = self.win(round).await? {
                    return Ok(Attempt::Acquired(token, None));
                }
                return Ok(Attempt::Waits { ahead: 0 });
            }
            if heard < self.majority() {
                let errors = round.errors.clone();
                round.lose();
                let since = *traces.unanswered().get_or_insert_with(Instant::now);
                return match since.elapsed() >= UNANSWERED {
                    true => Err(BackendError::Failed(self.no_majority(&errors))),
                    false => Ok(Attempt::Waits { ahead: 1 }),
                };
            }
            *traces.unanswered() = None;
            let ahead = round.tally.ahead();
            let is_settled = match (traces.ticket(), round.tally.ticket()) {
                (None, Some(ticket)) => {
                    traces.set_ticket(ticket);
                    round.tally.agrees_on(ticket)
                }
                _ => true,
            };
            round.lose();
            if is_settled {
                return Ok(Attempt::Waits { ahead });
            }
        }
    }

    /// Finds the token of a claim that a majority is for, and lets a majority know it before anything else is
    /// done with the lock. `None`: too many of them have gone meanwhile.
    async fn win(&self, mut round: Round) -> Result<Option<FencingToken>, BackendError> {
        let greatest = round.tally.greatest();
        if round.claim().mode == Mode::Shared {
            let token = FencingToken(greatest);
            round.win(token);
            return Ok(Some(token));
        }
        let token = match round.tally.remembered() {
            Some(token) => token,
            None => match self.new_generation(&round.claim().key).await {
                Ok(generation) => greatest.max(generation.base() + 1),
                Err(error) => {
                    round.lose();
                    return Err(error);
                }
            },
        };
        let token = FencingToken(token);
        if round.make_known(token, self.majority(), self.limit).await {
            round.win(token);
            return Ok(Some(token));
        }
        round.lose();
        Ok(None)
    }

    /// A generation that begins now, while a majority has the lock: after all that were before.
    async fn new_generation(&self, key: &str) -> Result<Generation, BackendError> {
        let name = format!("a majority of {}", self.nodes.len());
        let mut lost = None;
        for _ in 0..GENERATIONS {
            let generation = self.generations.generation(key, &name, lost).await.map_err(|error| {
                BackendError::Failed(format!("where the generations of fencing tokens are kept: {error}"))
            })?;
            if generation.is_new {
                if generation.number > 0 {
                    tracing::warn!(key, "a majority of the Redis servers has no count of fencing tokens");
                }
                return Ok(generation);
            }
            lost = Some(generation.number);
        }
        Err(BackendError::Failed("others begin generations of fencing tokens all the time".into()))
    }
}

/// Asks servers all at the same time; their answers come as they are ready. Whoever has heard enough need not
/// wait for the others.
fn ask<T: Send + 'static, Answer: Future<Output = T> + Send + 'static>(
    nodes: &[Arc<Node>],
    question: impl Fn(Arc<Node>) -> Answer,
) -> mpsc::UnboundedReceiver<(Arc<Node>, T)> {
    let (sender, answers) = mpsc::unbounded_channel();
    for node in nodes {
        let (node, sender, answer) = (Arc::clone(node), sender.clone(), question(Arc::clone(node)));
        tokio::spawn(async move {
            let answer = answer.await;
            // An error says that enough was heard without this one.
            sender.send((node, answer)).ok();
        });
    }
    answers
}

#[async_trait]
impl Backend for Redlock {
    async fn attempt(self: Arc<Self>, claim: Arc<Claim>, _: Step) -> Result<Attempt, BackendError> {
        let traces = self.claims.of(&claim, self.nodes.len());
        self.vote(&claim, &traces).await
    }

    async fn renew(&self, claims: &[Arc<Claim>]) -> Vec<Result<bool, BackendError>> {
        let answering: Vec<_> = self.nodes.iter().filter(|node| node.answers()).cloned().collect();
        let all: Arc<[_]> = claims.into();
        let mut answers = ask(&answering, |node| {
            let claims = Arc::clone(&all);
            async move { node.renew(&claims).await }
        });
        let (mut kept, mut gone) = (vec![0; claims.len()], vec![0; claims.len()]);
        let deadline = Instant::now() + self.limit;
        while kept.iter().any(|kept| *kept < self.majority()) {
            let Ok(Some((_, renewed))) = timeout_at(deadline, answers.recv()).await else { break };
            for (claim, is_kept) in renewed.unwrap_or_default().into_iter().enumerate() {
                *(if is_kept { &mut kept[claim] } else { &mut gone[claim] }) += 1;
            }
        }
        let outcome = |(kept, gone): (usize, usize)| match () {
            () if kept >= self.majority() => Ok(true),
            // Whatever the others say, it is none any more.
            () if self.nodes.len() - gone < self.majority() => Ok(false),
            () => Err(BackendError::Failed("no majority answered in time".into())),
        };
        kept.into_iter().zip(gone).map(outcome).collect()
    }

    async fn release(&self, claim: &Arc<Claim>, _: Option<&str>) -> Result<(), BackendError> {
        self.claims.release(claim, &self.nodes, self.majority()).await;
        Ok(())
    }

    async fn state(&self, key: &str) -> Result<LockState, BackendError> {
        let key: Arc<str> = key.into();
        let mut answers = ask(&self.nodes, |node| {
            let key = Arc::clone(&key);
            async move { timeout(QUESTION, node.server.state(&key)).await }
        });
        let (mut states, mut errors) = (Vec::new(), Vec::new());
        // Those that are left out are waited for only where they are needed.
        let mut expected = self.nodes.iter().filter(|node| node.answers()).count();
        while (expected > 0 || states.len() < self.majority())
            && let Some((node, state)) = answers.recv().await
        {
            expected = expected.saturating_sub(usize::from(node.answers()));
            match state.unwrap_or_else(|_| Err(other(NO_ANSWER))) {
                Ok(state) => states.push(state),
                Err(error) => errors.push(format!("{}: {error}", node.address)),
            }
        }
        match states.len() >= self.majority() {
            true => Ok(merge(&key, self.nodes.len(), &states)),
            false => Err(BackendError::Failed(self.no_majority(&errors))),
        }
    }

    fn wakeups(&self) -> &Arc<Wakeups> {
        &self.wakeups
    }

    fn pause(&self, ahead: u32) -> Duration {
        // A split vote is tried again soon, and by each at a time of its own.
        let ms = if ahead == 0 { 2..=20 } else { 50..=100 };
        Duration::from_millis(rand::rng().random_range(ms))
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn late_write_window(&self) -> Duration {
        // As with one server.
        COMMAND
    }

    async fn close(&self) {
        let give_up = Instant::now() + LAST_RELEASES;
        while !self.claims.is_empty() && Instant::now() < give_up {
            sleep(Duration::from_millis(5)).await;
        }
        self.nodes.iter().for_each(|node| node.server.close());
    }
}
