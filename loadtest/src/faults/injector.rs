//! Injects faults while a run goes on, and clears them when it is over.

mod inject;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use lab::ServerKind;
use order_service::api::HoldRecord;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use self::inject::Injected;
use super::{Fault, FaultJournal, FaultMark, Schedule, Span, What};
use crate::client::Client;
use crate::fleet::Fleet;

/// How long the holder of the lock is looked for, to be the one that is hit.
const LOOK: Duration = Duration::from_millis(200);

/// How long after the last fault the next one is drawn, at least and at most. The one before may still go on.
const BETWEEN: (Duration, Duration) = (Duration::from_millis(300), Duration::from_millis(2_500));

/// How long it is until what cannot be done now is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// How many slow clients each replica has.
const SLOW_CLIENTS: usize = 16;

/// Injects what a schedule says.
pub struct Injector<'a> {
    fleet: &'a mut Fleet,
    schedule: Schedule,
    lease: Duration,
    random: StdRng,
    journal: FaultJournal,
    incarnations: Vec<Incarnation>,
    /// What has not been injected yet.
    to_come: Vec<Fault>,
    /// What could not be injected, and why.
    impossible: Vec<String>,
    /// How far ahead of the system's the servers' clocks are, in seconds.
    clocks: HashMap<ServerKind, i64>,
    /// How much later servers answer.
    latencies: HashMap<ServerKind, Duration>,
    /// Replicas that were killed and are not started again yet.
    down: HashSet<usize>,
    /// Replicas that ended or fell silent by themselves, with what is known of it.
    crashed: Vec<String>,
    /// What was in the way of faults that were due.
    in_the_way: Vec<(Fault, &'static str)>,
    /// How often the full disk had been noticed when it became full.
    refusals: usize,
}

/// What is due at some time.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A fault that was asked for.
    Inject(Fault),
    /// One that is drawn.
    Draw,
    /// The end of something, which is noted at the mark.
    Clear { what: Clearing, mark: usize },
}

/// How something that is broken is whole again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clearing {
    /// A replica that was killed is started again.
    Revive(usize),
    /// A replica that was stopped goes on.
    Resume(usize),
    /// A replica and a server hear of each other again.
    Rejoin(usize, ServerKind),
    /// A server that was stopped goes on.
    Wake(ServerKind),
    /// The servers of an ensemble hear of each other again.
    Reunite,
    /// A server of several processes has one that leads again: until then, the fault is not over.
    Elect(ServerKind),
    /// The disk has room again.
    MakeRoom,
    /// A replica may open files again.
    GiveHandles(usize),
}

impl Clearing {
    /// Whether a replica cannot start before this.
    fn holds_up(self, replica: usize) -> bool {
        match self {
            Self::Wake(_) | Self::Reunite | Self::Elect(_) | Self::MakeRoom => true,
            Self::Rejoin(other, _) => other == replica,
            Self::Revive(_) | Self::Resume(_) | Self::GiveHandles(_) => false,
        }
    }
}

/// One run of a replica's process, from its start to its kill, as it was shortly before its end.
#[derive(Debug, Clone)]
pub struct Incarnation {
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
        Self {
            fleet,
            schedule: schedule.clone(),
            lease: Duration::from_secs(1),
            random: StdRng::seed_from_u64(seed),
            journal: FaultJournal::default(),
            incarnations: Vec::new(),
            to_come: schedule.faults.clone(),
            impossible: Vec::new(),
            clocks: HashMap::new(),
            latencies: HashMap::new(),
            down: HashSet::new(),
            crashed: Vec::new(),
            in_the_way: Vec::new(),
            refusals: 0,
        }
    }

    /// What was done so far, for whoever watches meanwhile.
    pub fn journal(&self) -> &FaultJournal {
        &self.journal
    }

    /// What was done.
    pub fn marks(&self) -> Vec<FaultMark> {
        self.journal.marks()
    }

    /// What was asked for and not done, and why; of a run that was stopped, only what could not be done.
    pub fn missed(&self, stopped: bool) -> Vec<String> {
        let late = self.to_come.iter().filter(|_| !stopped);
        let late = late.map(|fault| match self.in_the_way.iter().find(|(other, _)| other == fault) {
            Some((_, why)) => format!("{fault}: {why}, until the run had ended"),
            None => format!("{fault}: the run had ended before"),
        });
        self.impossible.iter().cloned().chain(late).collect()
    }

    /// Replicas that ended, or answered no more, without having been killed.
    pub fn crashed(&self) -> &[String] {
        &self.crashed
    }

    /// The runs of replicas' processes that were ended.
    pub fn incarnations(&self) -> &[Incarnation] {
        &self.incarnations
    }

    /// Breaks things while `run`, of orders for `sku` under leases of `lease`, goes on; then clears what is
    /// left.
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
        self.clear_all().await?;
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
        let mut due: Vec<_> = faults.map(|fault| (begun + fault.at, Event::Inject(*fault))).collect();
        if self.schedule.random {
            due.push((begun + self.random.random_range(BETWEEN.0..BETWEEN.1), Event::Draw));
        }
        while let Some(next) = due.iter().map(|(at, _)| *at).min() {
            sleep_until(next).await;
            let at = due.iter().position(|(at, _)| *at == next).expect("it was found a moment ago");
            let (_, event) = due.remove(at);
            let injected = match event {
                Event::Inject(fault) => {
                    let injected = self.inject(fault.what, sku, begun, slow_clients).await?;
                    match &injected {
                        Injected::NotNow(why) => {
                            self.in_the_way.push((fault, why));
                            due.push((Instant::now() + AGAIN, event));
                        }
                        Injected::Impossible(why) => self.impossible.push(format!("{fault}: {why}")),
                        Injected::Once | Injected::Until(..) => {}
                    }
                    if !matches!(injected, Injected::NotNow(_)) {
                        // Of two that are the same, one.
                        let first = self.to_come.iter().position(|other| *other == fault);
                        if let Some(first) = first {
                            self.to_come.remove(first);
                        }
                    }
                    injected
                }
                Event::Draw => {
                    let what = self.draw();
                    let injected = self.inject(what, sku, begun, slow_clients).await?;
                    due.push((Instant::now() + self.random.random_range(BETWEEN.0..BETWEEN.1), Event::Draw));
                    injected
                }
                Event::Clear { what: Clearing::Revive(victim), mark } => {
                    let is_held_up = due.iter().any(
                        |(_, other)| matches!(other, Event::Clear { what, .. } if what.holds_up(victim)),
                    );
                    // It would wait for what is cleared here, later; and whoever starts it again when it does
                    // not come up, as whatever watches over a deployment does, is not done yet.
                    if is_held_up || !self.revive(victim).await {
                        due.push((Instant::now() + AGAIN, event));
                    } else {
                        self.until(mark, ms(begun));
                    }
                    Injected::Once
                }
                Event::Clear { what: Clearing::Elect(kind), mark } => {
                    if self.is_led(kind).await {
                        self.until(mark, ms(begun));
                    } else {
                        due.push((Instant::now() + AGAIN, event));
                    }
                    Injected::Once
                }
                Event::Clear { what: what @ (Clearing::Reunite | Clearing::Wake(_)), mark } => {
                    self.clear(what).await?;
                    let kind = if let Clearing::Wake(kind) = what { kind } else { ServerKind::Zookeeper };
                    due.push((Instant::now(), Event::Clear { what: Clearing::Elect(kind), mark }));
                    Injected::Once
                }
                Event::Clear { what, mark } => {
                    self.clear(what).await?;
                    if what == Clearing::MakeRoom && self.refusals() == self.refusals {
                        self.journal.change(mark, |mark| mark.what += ", and nothing had to grow");
                    }
                    self.until(mark, ms(begun));
                    Injected::Once
                }
            };
            if let Injected::Until(when, what) = injected {
                due.push((when, Event::Clear { what, mark: self.journal.last() }));
            }
        }
        Ok(())
    }

    /// A fault that this fleet can have.
    fn draw(&mut self) -> What {
        let servers: Vec<_> = self.fleet.servers().iter().map(|server| server.kind()).collect();
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

    /// A number below `limit`; `None` when that is zero.
    fn random(&mut self, limit: usize) -> Option<usize> {
        (limit > 0).then(|| self.random.random_range(0..limit))
    }

    /// Notes something that may cost leases, done to one replica or to a server.
    fn mark(&mut self, at_ms: f64, replica: Option<usize>, what: String) -> usize {
        self.journal.add(FaultMark { at_ms, until_ms: None, what, replica, costs_leases: true })
    }

    fn until(&mut self, mark: usize, at_ms: f64) {
        self.journal.change(mark, |mark| mark.until_ms = Some(at_ms));
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
