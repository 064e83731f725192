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

use super::{FaultMark, Schedule, Server, Span, What};
use crate::client::Client;
use crate::fleet::Fleet;

/// How long the holder of the lock is looked for, to be the one who is struck.
const LOOK: Duration = Duration::from_millis(200);

/// How long after the last fault the next one is drawn, at least and at most.
const BETWEEN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(900));

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
        Self { fleet, schedule: schedule.clone(), lease, random, marks: Vec::new(), lives: Vec::new() }
    }

    /// What was done.
    pub fn marks(&self) -> &[FaultMark] {
        &self.marks
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

    async fn break_things(
        &mut self,
        sku: &str,
        begun: Instant,
        slow_clients: &mut JoinSet<()>,
    ) -> anyhow::Result<()> {
        for fault in self.schedule.faults.clone() {
            sleep_until(begun + fault.at).await;
            self.strike(fault.what, sku, begun, slow_clients).await?;
        }
        while self.schedule.random {
            sleep(self.random.random_range(BETWEEN.0..BETWEEN.1)).await;
            let what = self.draw();
            self.strike(what, sku, begun, slow_clients).await?;
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

    async fn strike(
        &mut self,
        what: What,
        sku: &str,
        begun: Instant,
        slow_clients: &mut JoinSet<()>,
    ) -> anyhow::Result<()> {
        let ms = |instant: Instant| (instant - begun).as_secs_f64() * 1e3;
        let lease = self.lease;
        match what {
            What::Kill => {
                let victim = self.victim(sku).await;
                let client = self.fleet.clients()[victim].clone();
                let (metrics, holds) = tokio::join!(client.metrics(), client.holds(sku));
                let killed = self.mark(ms(Instant::now()), format!("replica-{} is killed", victim + 1));
                self.fleet.replicas()[victim].kill().await?;
                let metrics = metrics.unwrap_or_default();
                // What was held then ended with the kill.
                let holds = holds.ok().map(|mut record| {
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
                self.until(killed, ms(Instant::now()));
            }
            What::Pause(span) => {
                let victim = self.victim(sku).await;
                let paused = self.mark(ms(Instant::now()), format!("replica-{} is stopped", victim + 1));
                self.fleet.replicas()[victim].pause()?;
                sleep(span.with_lease(lease)).await;
                self.fleet.replicas()[victim].resume()?;
                self.until(paused, ms(Instant::now()));
            }
            What::Restart(server) => {
                let begun = ms(Instant::now());
                if self.restart(server).await? {
                    let mark = self.mark(begun, format!("{server} is killed and started again"));
                    self.until(mark, ms(Instant::now()));
                }
            }
            What::Partition(server, span) => {
                let victim = self.victim(sku).await;
                let Some(link) = self.link(victim, server) else { return Ok(()) };
                link.blackhole(Direction::ToServer);
                link.blackhole(Direction::ToClient);
                let who = format!("replica-{} and {server} do not reach each other", victim + 1);
                let parted = self.mark(ms(Instant::now()), who);
                sleep(span.with_lease(lease)).await;
                if let Some(link) = self.link(victim, server) {
                    // A connection that was silent for so long does not come back; its packets would.
                    link.cut();
                    link.heal();
                }
                self.until(parted, ms(Instant::now()));
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
                self.mark(ms(Instant::now()), what);
            }
            What::SlowClients => {
                for client in self.fleet.clients() {
                    send_slowly(client, slow_clients);
                }
                self.mark(ms(Instant::now()), format!("{SLOW_CLIENTS} slow clients come to each replica"));
            }
        }
        Ok(())
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

    fn mark(&mut self, at_ms: f64, what: String) -> usize {
        self.marks.push(FaultMark { at_ms, until_ms: None, what });
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
