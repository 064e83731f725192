//! How each kind of fault is injected, and how it is cleared.

use std::time::Duration;

use lab::{
    Direction, Ensemble, INSTALL_FAKETIME, Postgres, Proxy, Redis, RedisServers, ServerKind, can_step_clocks,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{Clearing, Incarnation, Injector, LOOK, SLOW_CLIENTS, ms, send_slowly};
use crate::faults::What;

/// How long a server that is asked for something may take before it is asked again later.
const ANSWER: Duration = Duration::from_secs(1);

/// How long it may take to end all connections, one after the other.
const ONE_BY_ONE: Duration = Duration::from_secs(5);

/// Why no replica can be hit.
const NO_REPLICA: &str = "no replica lived";

/// Why a server cannot be hit.
const NO_SERVER: &str = "there is no such server";

/// What has come of an injection. The last mark is its own, where there is a fault now.
pub(super) enum Injected {
    /// It is over already, or lasts until the end of the run.
    Once,
    /// It is to be cleared.
    Until(Instant, Clearing),
    /// Something is in its way.
    NotNow(&'static str),
    /// There is nothing that can have it.
    Impossible(String),
}

impl Injector<'_> {
    /// Breaks something.
    pub(super) async fn inject(
        &mut self,
        what: What,
        sku: &str,
        begun: Instant,
        slow_clients: &mut JoinSet<()>,
    ) -> anyhow::Result<Injected> {
        let lease = self.lease;
        let no_server = || Ok(Injected::Impossible(NO_SERVER.into()));
        match what {
            What::Kill => {
                let Some(victim) = self.victim(sku).await else { return Ok(Injected::NotNow(NO_REPLICA)) };
                self.kill(victim, sku, begun).await?;
                Ok(Injected::Until(Instant::now(), Clearing::Revive(victim)))
            }
            What::Pause(span) => {
                let Some(victim) = self.victim(sku).await else { return Ok(Injected::NotNow(NO_REPLICA)) };
                self.mark(ms(begun), Some(victim), format!("replica-{} is stopped", victim + 1));
                self.fleet.replicas()[victim].pause()?;
                Ok(Injected::Until(Instant::now() + span.with_lease(lease), Clearing::Resume(victim)))
            }
            What::NoHandles(span) => {
                let Some(victim) = self.victim(sku).await else { return Ok(Injected::NotNow(NO_REPLICA)) };
                let replica = &self.fleet.replicas()[victim];
                if replica.limit_files(true).await.is_err() {
                    return Ok(Injected::NotNow("its files could not be limited"));
                }
                self.mark(ms(begun), Some(victim), format!("replica-{} can open no file", victim + 1));
                Ok(Injected::Until(Instant::now() + span.with_lease(lease), Clearing::GiveHandles(victim)))
            }
            What::Restart(kind) => {
                let Some(server) = self.fleet.servers().get(kind) else { return no_server() };
                self.mark(ms(begun), None, format!("{} is killed and started again", server.struck()));
                let Some(server) = self.fleet.servers_mut().get_mut(kind) else { return no_server() };
                server.kill().await?;
                server.restart().await?;
                Ok(Injected::Until(Instant::now(), Clearing::Elect(kind)))
            }
            What::FailOver(kind) => {
                let Some(server) = self.fleet.servers().get(kind) else { return no_server() };
                self.mark(ms(begun), None, format!("{} is killed, and another takes over", server.struck()));
                let Some(server) = self.fleet.servers_mut().get_mut(kind) else { return no_server() };
                server.kill().await?;
                server.restart().await?;
                Ok(Injected::Until(Instant::now(), Clearing::Elect(kind)))
            }
            What::Stall(kind, span) => {
                let Some(server) = self.fleet.servers().get(kind) else { return no_server() };
                server.pause().await?;
                let struck = server.struck();
                self.mark(ms(begun), None, format!("{struck} is stopped"));
                Ok(Injected::Until(Instant::now() + span.with_lease(lease), Clearing::Wake(kind)))
            }
            What::Partition(server, span) => {
                let Some(victim) = self.victim(sku).await else { return Ok(Injected::NotNow(NO_REPLICA)) };
                let links = self.links(victim, server);
                if links.is_empty() {
                    return no_server();
                }
                for link in links {
                    link.blackhole(Direction::ToServer);
                    link.blackhole(Direction::ToClient);
                }
                let who = format!("replica-{} and {server} do not reach each other", victim + 1);
                self.mark(ms(begun), Some(victim), who);
                Ok(Injected::Until(Instant::now() + span.with_lease(lease), Clearing::Rejoin(victim, server)))
            }
            What::Split(span) => {
                let Some(ensemble) = self.fleet.servers().find::<Ensemble>() else { return no_server() };
                let Some(leader) = ensemble.leader().await else {
                    return Ok(Injected::NotNow("no server led"));
                };
                for follower in (0..ensemble.size()).filter(|follower| *follower != leader) {
                    ensemble.link(follower, leader).blackhole(Direction::ToServer);
                    ensemble.link(follower, leader).blackhole(Direction::ToClient);
                }
                let what = format!(
                    "ZooKeeper's leader, server {}, and the others do not hear of each other",
                    leader + 1
                );
                self.mark(ms(begun), None, what);
                Ok(Injected::Until(Instant::now() + span.with_lease(lease), Clearing::Reunite))
            }
            What::Latency(server, delay) => {
                if self.links(0, server).is_empty() {
                    return no_server();
                }
                self.latencies.insert(server, delay);
                (0..self.fleet.clients().len()).for_each(|replica| self.slow_down(replica, server));
                let what = format!("{server} answers {} ms later", delay.as_millis());
                let mark = self.mark(ms(begun), None, what);
                // Three renewals in a lease, each there and back.
                self.journal.change(mark, |mark| mark.costs_leases = delay * 6 >= lease);
                Ok(Injected::Once)
            }
            What::SlowClients => {
                for client in self.fleet.clients() {
                    send_slowly(client, slow_clients);
                }
                let what = format!("{SLOW_CLIENTS} slow clients come to each replica");
                let mark = self.mark(ms(begun), None, what);
                self.journal.change(mark, |mark| mark.costs_leases = false);
                Ok(Injected::Once)
            }
            What::Clock(server, seconds) => self.step(server, seconds, begun),
            What::Flush => {
                let servers = self.fleet.servers();
                let one_of_several = || servers.find::<RedisServers>().map(RedisServers::next);
                let redis = servers.find::<Redis>().or_else(one_of_several);
                let Some((redis, server)) = redis.zip(servers.get(ServerKind::Redis)) else {
                    return no_server();
                };
                let (from, what) = (ms(begun), format!("{} forgets everything", server.struck()));
                match timeout(ANSWER, redis.command(&["FLUSHALL"])).await {
                    Ok(Ok(_)) => Ok(self.done(&what, from, begun)),
                    _ => Ok(Injected::NotNow("redis did not answer")),
                }
            }
            What::Terminate => {
                let Some(postgres) = self.fleet.servers().find::<Postgres>() else { return no_server() };
                let from = ms(begun);
                match timeout(ONE_BY_ONE, postgres.terminate_backends()).await {
                    Ok(Ok(())) => Ok(self.done("postgres' connections are ended one by one", from, begun)),
                    _ => Ok(Injected::NotNow("postgres did not answer")),
                }
            }
            What::FullDisk(span) => {
                let Some(postgres) = self.fleet.servers().find::<Postgres>() else { return no_server() };
                let refusals = postgres.refusals();
                if postgres.fill_disk(true).await.is_err() {
                    return Ok(Injected::NotNow("its files could not be limited"));
                }
                self.refusals = refusals;
                self.mark(ms(begun), None, "postgres' disk is full".into());
                Ok(Injected::Until(Instant::now() + span.with_lease(lease), Clearing::MakeRoom))
            }
        }
    }

    /// Notes what is over as soon as it is done.
    fn done(&mut self, what: &str, from: f64, begun: Instant) -> Injected {
        let mark = self.mark(from, None, what.into());
        self.until(mark, ms(begun));
        Injected::Once
    }

    /// Lets a replica wait for a server's answers as long as was said.
    fn slow_down(&self, replica: usize, server: ServerKind) {
        let delay = self.latencies.get(&server).copied().unwrap_or_default();
        for link in self.links(replica, server) {
            link.delay(Direction::ToServer, delay / 2);
            link.delay(Direction::ToClient, delay / 2);
        }
    }

    /// How often PostgreSQL has noticed that its disk is full.
    pub(super) fn refusals(&self) -> usize {
        self.fleet.servers().find().map_or(0, Postgres::refusals)
    }

    fn step(&mut self, server: ServerKind, seconds: i64, begun: Instant) -> anyhow::Result<Injected> {
        let (from, ahead) = (ms(begun), self.clocks.get(&server).copied().unwrap_or_default() + seconds);
        let Some(clock) = self.fleet.servers().get(server) else {
            return Ok(Injected::Impossible(NO_SERVER.into()));
        };
        match clock.set_clock(ahead)? {
            true => {}
            false if !can_step_clocks() => {
                return Ok(Injected::Impossible(format!("its clock cannot be stepped; {INSTALL_FAKETIME}")));
            }
            false => return Ok(Injected::Impossible("its clock is the system's".into())),
        }
        let what = format!("{}'s clock is stepped by {seconds:+} s", clock.struck());
        self.clocks.insert(server, ahead);
        let mark = self.mark(from, None, what);
        // What was to expire before it was stepped back expires so much later.
        self.until(mark, ms(begun) + seconds.min(0).unsigned_abs() as f64 * 1e3);
        Ok(Injected::Once)
    }

    async fn kill(&mut self, victim: usize, sku: &str, begun: Instant) -> anyhow::Result<()> {
        let client = self.fleet.clients()[victim].clone();
        // One that is stopped, too, does not answer.
        let final_snapshot = async { tokio::join!(client.metrics(), client.holds(sku)) };
        let (metrics, holds) = match timeout(LOOK, final_snapshot).await {
            Ok((metrics, holds)) => (metrics.unwrap_or_default(), holds.ok()),
            Err(_) => (String::new(), None),
        };
        self.mark(ms(begun), Some(victim), format!("replica-{} is killed", victim + 1));
        self.fleet.replicas()[victim].kill().await?;
        self.down.insert(victim);
        // What was held then ended with the kill.
        let holds = holds.map(|mut record| {
            let now_ns = record.now_ns;
            record.holds.iter_mut().for_each(|hold| hold.released_ns = hold.released_ns.or(Some(now_ns)));
            record
        });
        self.incarnations.push(Incarnation { replica: victim, metrics, holds });
        Ok(())
    }

    /// Which replica to hit: the one that has the lock, if that can be seen, or else any that runs; `None` if
    /// none does.
    async fn victim(&mut self, sku: &str) -> Option<usize> {
        let replicas = self.fleet.clients().len();
        let living: Vec<_> =
            (0..replicas).filter(|replica| self.fleet.replicas()[*replica].exited().is_none()).collect();
        let any = *living.get(self.random(living.len())?)?;
        let asked = self.fleet.clients()[any].clone();
        let looked = Instant::now();
        while looked.elapsed() < LOOK {
            let Ok(state) = timeout(LOOK, asked.lock(sku)).await else { break };
            let holder = state.ok().and_then(|state| state.holders.into_iter().find_map(|h| h.replica));
            let number = holder.and_then(|name| name.strip_prefix("replica-")?.parse::<usize>().ok());
            if let Some(number) = number.filter(|number| living.contains(&number.wrapping_sub(1))) {
                return Some(number - 1);
            }
        }
        Some(any)
    }

    fn links(&self, replica: usize, server: ServerKind) -> &[Proxy] {
        self.fleet.links_of(replica).to(server)
    }

    /// Whether the processes of a server, where it is several, have one that leads.
    pub(super) async fn is_led(&self, kind: ServerKind) -> bool {
        match self.fleet.servers().get(kind) {
            Some(server) => server.is_led().await,
            None => true,
        }
    }

    /// Starts a replica again; `false` when it does not come up.
    pub(super) async fn revive(&mut self, victim: usize) -> bool {
        let is_up = self.fleet.restart(victim).await.is_ok();
        if is_up {
            self.down.remove(&victim);
        }
        is_up
    }

    /// Clears a fault. What was started again meanwhile has none any more.
    pub(super) async fn clear(&mut self, what: Clearing) -> anyhow::Result<()> {
        match what {
            Clearing::Revive(victim) => {
                let is_up = self.revive(victim).await;
                anyhow::ensure!(is_up, "replica-{} does not come back", victim + 1);
            }
            Clearing::Resume(victim) => drop(self.fleet.replicas()[victim].resume()),
            Clearing::Rejoin(victim, server) => {
                for link in self.links(victim, server) {
                    // A connection that was silent for so long does not come back; its packets would.
                    link.cut();
                    link.heal();
                }
                self.slow_down(victim, server);
            }
            Clearing::Wake(kind) => drop(self.fleet.servers().get(kind).map(|server| server.resume())),
            // It comes by itself.
            Clearing::Elect(_) => {}
            Clearing::Reunite => {
                for link in self.fleet.servers().find::<Ensemble>().into_iter().flat_map(Ensemble::links) {
                    link.cut();
                    link.heal();
                }
            }
            Clearing::MakeRoom => {
                if let Some(postgres) = self.fleet.servers().find::<Postgres>() {
                    postgres.fill_disk(false).await?;
                }
            }
            // One that was killed meanwhile, and started again, has its handles.
            Clearing::GiveHandles(victim) => drop(self.fleet.replicas()[victim].limit_files(false).await),
        }
        Ok(())
    }

    /// Ends whatever fault the end of the run has left.
    pub(super) async fn clear_all(&mut self) -> anyhow::Result<()> {
        for replica in 0..self.fleet.clients().len() {
            self.fleet.links_of(replica).all().for_each(Proxy::heal);
        }
        self.fleet.servers().find::<Ensemble>().into_iter().flat_map(Ensemble::links).for_each(Proxy::heal);
        for kind in ServerKind::ALL {
            self.clear(Clearing::Wake(kind)).await?;
            if let Some(server) = self.fleet.servers_mut().get_mut(kind) {
                server.restart().await?;
            }
        }
        if let Some(postgres) = self.fleet.servers().find::<Postgres>() {
            // Where limits cannot be set, none was.
            postgres.fill_disk(false).await.ok();
        }
        self.revive_all().await
    }

    /// Starts every replica again that does not answer, and notes which of them was not killed.
    async fn revive_all(&mut self) -> anyhow::Result<()> {
        for replica in 0..self.fleet.clients().len() {
            let process = &self.fleet.replicas()[replica];
            let resumed = process.resume();
            process.limit_files(false).await.ok();
            let answer = match resumed {
                Ok(()) => self.fleet.clients()[replica].info().await.err().map(|error| error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            let Some(why) = answer else { continue };
            if !self.down.remove(&replica) {
                let process = &mut self.fleet.replicas()[replica];
                let ended = process.exited().map_or("runs".into(), |status| format!("ended with {status}"));
                self.crashed.push(format!(
                    "replica-{} was not killed, and {ended}: {why}; the end of its log:\n{}",
                    replica + 1,
                    process.log_tail()
                ));
            }
            self.fleet.restart(replica).await?;
        }
        Ok(())
    }
}
