//! Who breaks things while a run goes on, and mends them when it is over.

use std::time::Duration;

use anyhow::Context as _;
use lab::{Direction, Proxy};
use order_service::api::HoldRecord;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Fault, FaultMark, Schedule, Server, Span, What};
use crate::client::Client;
use crate::fleet::Fleet;

/// How long the holder of the lock is looked for, to be the one who is struck.
const LOOK: Duration = Duration::from_millis(200);

/// How long after the last fault the next one is drawn, at least and at most. The one before may still go on.
const BETWEEN: (Duration, Duration) = (Duration::from_millis(300), Duration::from_millis(2_500));

/// How many slow clients each replica has.
const SLOW_CLIENTS: usize = 16;

/// Breaks what a schedule says.
pub struct Injector<'a> {
    fleet: &'a mut Fleet,
    schedule: Schedule,
    lease: Duration,
    random: StdRng,
    marks: Vec<FaultMark>,
    lives: Vec<Life>,
    /// What has not struck yet.
    to_come: Vec<Fault>,
    /// What could not strike, and why.
    impossible: Vec<String>,
}

/// What is due at some time.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A fault that was asked for.
    Strike(Fault),
    /// One that is drawn.
    Draw,
    /// The end of a pause.
    Resume { victim: usize, mark: usize },
    /// The end of a partition.
    Rejoin { victim: usize, server: Server, mark: usize },
}

/// A life of a replica that has ended, as it was shortly before.
#[derive(Debug, Clone)]
pub struct Life {
    /// Which replica.
    pub replica: usize,
    /// What it had counted.
    pub metrics: String,
    /// Which locks it had held.
    pub holds: Option<HoldRecord>,
}

impl<'a> Injector<'a> {
    /// Breaks `fleet` as `schedule` says; what is not said is drawn from `seed`.
    pub fn new(fleet: &'a mut Fleet, schedule: &Schedule, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let lease = Duration::from_secs(1);
        let (schedule, to_come) = (schedule.clone(), schedule.faults.clone());
        let (marks, lives, impossible) = (Vec::new(), Vec::new(), Vec::new());
        Self { fleet, schedule, lease, random, marks, lives, to_come, impossible }
    }

    /// What was done.
    pub fn marks(&self) -> &[FaultMark] {
        &self.marks
    }

    /// What was asked for and not done, and why; of a run that was stopped, only what could not be done.
    pub fn missed(&self, stopped: bool) -> Vec<String> {
        let late = self
            .to_come
            .iter()
            .filter(|_| !stopped)
            .map(|fault| format!("{fault}: the run had ended before"));
        self.impossible.iter().cloned().chain(late).collect()
    }

    /// The lives that were ended.
    pub fn lives(&self) -> &[Life] {
        &self.lives
    }

    /// Breaks things while `run`, of orders for `sku` under leases of `lease`, goes on; then mends what is left broken.
    pub async fn during<T>(
        &mut self,
        sku: &str,
        lease: Option<Duration>,
        run: impl Future<Output = T>,
    ) -> anyhow::Result<T> {
        self.lease = lease.unwrap_or(self.lease);
        let begun = Instant::now();
        let mut slow_clients = JoinSet::new();
        let outcome = {
            let breaking = self.break_things(sku, begun, &mut slow_clients);
            tokio::pin!(run, breaking);
            tokio::select! {
                outcome = &mut run => outcome,
                broken = &mut breaking => {
                    broken?;
                    run.await
                }
            }
        };
        slow_clients.shutdown().await;
        self.mend().await?;
        Ok(outcome)
    }

    /// Does what is due, until nothing is left to do; which is never, where faults are drawn.
    async fn break_things(
        &mut self,
        sku: &str,
        begun: Instant,
        slow_clients: &mut JoinSet<()>,
    ) -> anyhow::Result<()> {
        let faults = self.schedule.faults.iter();
        let mut due: Vec<_> = faults.map(|fault| (begun + fault.at, Event::Strike(*fault))).collect();
        if self.schedule.random {
            due.push((begun + self.random.random_range(BETWEEN.0..BETWEEN.1), Event::Draw));
        }
        while let Some(next) = due.iter().map(|(at, _)| *at).min() {
            sleep_until(next).await;
            let at = due.iter().position(|(at, _)| *at == next).expect("it was found a moment ago");
            let (_, event) = due.remove(at);
            let ended = match event {
                Event::Strike(fault) => {
                    self.to_come.retain(|other| *other != fault);
                    let struck = self.marks.len();
                    let ended = self.strike(fault.what, sku, begun, slow_clients).await?;
                    if self.marks.len() == struck {
                        self.impossible.push(format!("{fault}: there is no such server"));
                    }
                    ended
                }
                Event::Draw => {
                    let what = self.draw();
                    let ended = self.strike(what, sku, begun, slow_clients).await?;
                    due.push((Instant::now() + self.random.random_range(BETWEEN.0..BETWEEN.1), Event::Draw));
                    ended
                }
                Event::Resume { victim, mark } => {
                    // One that was killed meanwhile, and started again, is not stopped.
                    self.fleet.replicas()[victim].resume().ok();
                    self.until(mark, ms(begun));
                    None
                }
                Event::Rejoin { victim, server, mark } => {
                    if let Some(link) = self.link(victim, server) {
                        // A connection that was silent for so long does not come back; its packets would.
                        link.cut();
                        link.heal();
                    }
                    self.until(mark, ms(begun));
                    None
                }
            };
            due.extend(ended);
        }
        Ok(())
    }

    /// A fault that can strike this fleet.
    fn draw(&mut self) -> What {
        let mut servers = Vec::new();
        if self.fleet.postgres().is_some() {
            servers.push(Server::Postgres);
        }
        if self.fleet.redis().is_some() {
            servers.push(Server::Redis);
        }
        if self.fleet.zookeeper().is_some() {
            servers.push(Server::Zookeeper);
        }
        let span = Span::Leases(self.random.random_range(50..250));
        let kinds = if servers.is_empty() { 2 } else { 5 };
        let kind = self.random.random_range(0..kinds);
        let mut server = || servers[self.random.random_range(0..servers.len())];
        match kind {
            0 => What::Kill,
            1 => What::Pause(span),
            2 => What::Restart(server()),
            3 => What::Partition(server(), span),
            _ => What::Latency(server(), Duration::from_millis(self.random.random_range(0..20))),
        }
    }

    /// Breaks something. Answers when and how it is to be mended, where that is not done at once.
    async fn strike(
        &mut self,
        what: What,
        sku: &str,
        begun: Instant,
        slow_clients: &mut JoinSet<()>,
    ) -> anyhow::Result<Option<(Instant, Event)>> {
        let lease = self.lease;
        match what {
            What::Kill => {
                let victim = self.victim(sku).await;
                let client = self.fleet.clients()[victim].clone();
                // One that is stopped, too, does not answer.
                let last_words = async { tokio::join!(client.metrics(), client.holds(sku)) };
                let (metrics, holds) = match tokio::time::timeout(LOOK, last_words).await {
                    Ok((metrics, holds)) => (metrics.unwrap_or_default(), holds.ok()),
                    Err(_) => (String::new(), None),
                };
                let killed = self.mark(ms(begun), Some(victim), format!("replica-{} is killed", victim + 1));
                self.fleet.replicas()[victim].kill().await?;
                // What was held then ended with the kill.
                let holds = holds.map(|mut record| {
                    let now_ns = record.now_ns;
                    record
                        .holds
                        .iter_mut()
                        .for_each(|hold| hold.released_ns = hold.released_ns.or(Some(now_ns)));
                    record
                });
                self.lives.push(Life { replica: victim, metrics, holds });
                let restarted = self.fleet.restart(victim).await;
                restarted.with_context(|| format!("replica-{} does not come back", victim + 1))?;
                self.until(killed, ms(begun));
            }
            What::Pause(span) => {
                let victim = self.victim(sku).await;
                let paused = self.mark(ms(begun), Some(victim), format!("replica-{} is stopped", victim + 1));
                self.fleet.replicas()[victim].pause()?;
                let end = Event::Resume { victim, mark: paused };
                return Ok(Some((Instant::now() + span.with_lease(lease), end)));
            }
            What::Restart(server) => {
                let killed = ms(begun);
                if self.restart(server).await? {
                    let mark = self.mark(killed, None, format!("{server} is killed and started again"));
                    self.until(mark, ms(begun));
                }
            }
            What::Partition(server, span) => {
                let victim = self.victim(sku).await;
                let Some(link) = self.link(victim, server) else { return Ok(None) };
                link.blackhole(Direction::ToServer);
                link.blackhole(Direction::ToClient);
                let who = format!("replica-{} and {server} do not reach each other", victim + 1);
                let end = Event::Rejoin { victim, server, mark: self.mark(ms(begun), Some(victim), who) };
                return Ok(Some((Instant::now() + span.with_lease(lease), end)));
            }
            What::Latency(server, delay) => {
                for replica in 0..self.fleet.clients().len() {
                    for direction in [Direction::ToServer, Direction::ToClient] {
                        if let Some(link) = self.link(replica, server) {
                            link.delay(direction, delay / 2);
                        }
                    }
                }
                let what = format!("{server} answers {} ms later", delay.as_millis());
                let mark = self.mark(ms(begun), None, what);
                // Three renewals in a lease, each there and back.
                self.marks[mark].costs_leases = delay * 6 >= lease;
            }
            What::SlowClients => {
                for client in self.fleet.clients() {
                    send_slowly(client, slow_clients);
                }
                let what = format!("{SLOW_CLIENTS} slow clients come to each replica");
                let mark = self.mark(ms(begun), None, what);
                self.marks[mark].costs_leases = false;
            }
        }
        Ok(None)
    }

    /// Whom to strike: whoever has the lock, if that can be seen, or else any replica.
    async fn victim(&mut self, sku: &str) -> usize {
        let replicas = self.fleet.clients().len();
        let any = self.random.random_range(0..replicas);
        let asked = self.fleet.clients()[any].clone();
        let looked = Instant::now();
        while looked.elapsed() < LOOK {
            let Ok(census) = tokio::time::timeout(LOOK, asked.lock(sku)).await else { break };
            let holder = census.ok().and_then(|census| census.holders.into_iter().find_map(|h| h.replica));
            let number = holder.and_then(|name| name.strip_prefix("replica-")?.parse::<usize>().ok());
            if let Some(number) = number.filter(|number| (1..=replicas).contains(number)) {
                return number - 1;
            }
        }
        any
    }

    fn link(&self, replica: usize, server: Server) -> Option<&Proxy> {
        let links = self.fleet.links_of(replica);
        match server {
            Server::Postgres => links.postgres.as_ref(),
            Server::Redis => links.redis.as_ref(),
            Server::Zookeeper => links.zookeeper.as_ref(),
        }
    }

    /// Kills a server and starts it again; `false` when this fleet has none.
    async fn restart(&mut self, server: Server) -> anyhow::Result<bool> {
        match server {
            Server::Postgres => {
                let Some(postgres) = self.fleet.postgres() else { return Ok(false) };
                postgres.kill().await?;
                postgres.restart().await?;
            }
            Server::Redis => {
                let Some(redis) = self.fleet.redis() else { return Ok(false) };
                redis.kill().await?;
                redis.restart().await?;
            }
            Server::Zookeeper => {
                let Some(zookeeper) = self.fleet.zookeeper() else { return Ok(false) };
                zookeeper.kill().await?;
                zookeeper.restart().await?;
            }
        }
        Ok(true)
    }

    /// Notes something that may cost leases, done to one replica or to a server.
    fn mark(&mut self, at_ms: f64, replica: Option<usize>, what: String) -> usize {
        self.marks.push(FaultMark { at_ms, until_ms: None, what, replica, costs_leases: true });
        self.marks.len() - 1
    }

    fn until(&mut self, mark: usize, at_ms: f64) {
        self.marks[mark].until_ms = Some(at_ms);
    }

    /// Ends whatever fault the end of the run has left.
    async fn mend(&mut self) -> anyhow::Result<()> {
        for replica in 0..self.fleet.clients().len() {
            self.fleet.links_of(replica).all().for_each(Proxy::heal);
        }
        let dead = |exited: Option<std::process::ExitStatus>| exited.is_some();
        if let Some(postgres) = self.fleet.postgres()
            && dead(postgres.process().exited())
        {
            postgres.restart().await?;
        }
        if let Some(redis) = self.fleet.redis()
            && dead(redis.process().exited())
        {
            redis.restart().await?;
        }
        if let Some(zookeeper) = self.fleet.zookeeper()
            && dead(zookeeper.process().exited())
        {
            zookeeper.restart().await?;
        }
        for replica in 0..self.fleet.clients().len() {
            // One that has ended, or is about to, cannot go on.
            let resumed = self.fleet.replicas()[replica].resume();
            if resumed.is_err() || self.fleet.clients()[replica].info().await.is_err() {
                self.fleet.restart(replica).await?;
            }
        }
        Ok(())
    }
}

/// Milliseconds since the run began.
fn ms(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

/// Connections that send an order's head byte by byte, and never all of it, for as long as the tasks live.
pub fn send_slowly(client: &Client, tasks: &mut JoinSet<()>) {
    for _ in 0..SLOW_CLIENTS {
        let address = client.base().trim_start_matches("http://").to_owned();
        tasks.spawn(async move {
            let Ok(mut stream) = TcpStream::connect(&address).await else { return };
            let head =
                format!("POST /v1/orders HTTP/1.1\r\nhost: {address}\r\ncontent-length: 1000000\r\nx-slow: ");
            for byte in head.bytes().chain(std::iter::repeat(b'.')) {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        });
    }
}
