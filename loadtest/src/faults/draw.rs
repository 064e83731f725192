//! Schedules that are drawn from a seed.

use std::time::Duration;

use lab::ServerKind;
use order_service::config::StrategyName;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Fault, Schedule, Span, What};
use crate::fleet::server_of;

/// The longest latency that is drawn, in milliseconds.
const LATENCY_MS: u64 = 3;

/// How far ahead of the system's, or behind, clocks are stepped, in seconds.
const STEPS: i64 = 3;

impl Schedule {
    /// So many faults of all kinds that replicas and servers can have under a strategy on PostgreSQL, from
    /// one time to another: the same for the same seed. They overlap as it comes.
    pub fn drawn(strategy: StrategyName, faults: usize, within: (Duration, Duration), seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut times: Vec<_> = (0..faults)
            .map(|_| Duration::from_millis(random.random_range(ms(within.0)..=ms(within.1))))
            .collect();
        times.sort_unstable();
        let mut clocks = Clocks::default();
        let fault = |at| Fault { at, what: draw(strategy, &mut clocks, &mut random) };
        Self { faults: times.into_iter().map(fault).collect(), random: false }
    }
}

/// How far ahead the clocks are, in seconds.
#[derive(Default)]
struct Clocks {
    postgres: i64,
    redis: i64,
}

impl Clocks {
    /// A step that leaves a clock where it was meant to be, within limits.
    fn step(&mut self, server: ServerKind, random: &mut StdRng) -> What {
        let ahead = if server == ServerKind::Redis { &mut self.redis } else { &mut self.postgres };
        let others: Vec<_> = (-STEPS..=STEPS).filter(|other| other != ahead).collect();
        let before = std::mem::replace(ahead, others[random.random_range(0..others.len())]);
        What::Clock(server, *ahead - before)
    }
}

fn draw(strategy: StrategyName, clocks: &mut Clocks, random: &mut StdRng) -> What {
    let mut servers = vec![ServerKind::Postgres];
    servers.extend(server_of(strategy));
    let server = servers[random.random_range(0..servers.len())];
    let leases = Span::Leases(random.random_range(25..200));
    let short = Span::For(Duration::from_millis(random.random_range(100..1_500)));
    match random.random_range(0..14) {
        0 | 1 => What::Kill,
        2 | 3 => What::Pause(leases),
        4 => What::Restart(server),
        5 | 6 => What::Partition(server, leases),
        7 => What::Latency(server, Duration::from_millis(random.random_range(0..=LATENCY_MS))),
        8 => What::Stall(server, short),
        9 => What::Terminate,
        10 => What::FullDisk(short),
        11 => What::NoHandles(short),
        12 => match server {
            ServerKind::Redis => What::Flush,
            ServerKind::Zookeeper => What::Split(leases),
            ServerKind::Etcd => What::Restart(server),
            ServerKind::Postgres => What::Terminate,
        },
        _ => clocks.step(if server == ServerKind::Redis { server } else { ServerKind::Postgres }, random),
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_all_kinds_and_the_same_again() {
        let within = (Duration::from_secs(1), Duration::from_secs(600));
        for strategy in StrategyName::leased() {
            let drawn = Schedule::drawn(strategy, 500, within, 7);
            assert_eq!(drawn, Schedule::drawn(strategy, 500, within, 7));
            assert_ne!(drawn, Schedule::drawn(strategy, 500, within, 8));
            assert!(drawn.faults.iter().all(|fault| (within.0..=within.1).contains(&fault.at)));
            assert!(drawn.faults.is_sorted_by_key(|fault| fault.at));
            // What is drawn can be written on a command line.
            let text = drawn.to_string();
            let read = Schedule::parse(std::slice::from_ref(&text)).expect("it is read");
            assert_eq!(read.to_string(), text);
            assert!(read == drawn, "what is written is not what was drawn");
            let kinds = ["kill@", "pause:", "restart:", "partition:", "latency:", "terminate:", "disk-full:"];
            for kind in kinds.into_iter().chain(["no-handles:", "clock:postgres:"]) {
                assert!(text.contains(kind), "{strategy} has no {kind}");
            }
            assert_eq!(text.contains("flush:redis"), strategy == StrategyName::Redis);
            assert_eq!(text.contains("split:zookeeper"), strategy == StrategyName::Zookeeper);
        }
    }
}
