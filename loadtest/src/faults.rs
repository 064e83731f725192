//! Faults: what is broken on purpose while a run goes on, and when.

mod draw;
mod injector;
mod journal;
mod menu;
mod text;

use std::str::FromStr;
use std::time::Duration;

use lab::ServerKind;
use order_service::config::did_you_mean;
use serde::{Deserialize, Serialize};

use crate::evidence::Broken;

pub use injector::{Incarnation, Injector, send_slowly};
pub use journal::FaultJournal;
pub use menu::Size;

/// A fault, and when it is injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What breaks.
    pub what: What,
    /// How long after the first order.
    pub at: Duration,
}

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A replica is killed, as by a power cut, and started again.
    Kill,
    /// A replica is stopped for so long, as by a long garbage collection.
    Pause(Span),
    /// A server is killed and started again.
    Restart(ServerKind),
    /// A server is killed, another takes over, and it comes back as that one's second.
    FailOver(ServerKind),
    /// A replica and a server do not hear of each other for so long.
    Partition(ServerKind, Span),
    /// What all replicas and a server send each other takes so much longer, until the end of the run.
    Latency(ServerKind, Duration),
    /// Clients that send their requests byte by byte and never come to their end.
    SlowClients,
    /// A server is stopped for so long.
    Stall(ServerKind, Span),
    /// A server's time of day is stepped by so many seconds.
    Clock(ServerKind, i64),
    /// Redis forgets everything.
    Flush,
    /// PostgreSQL's connections are ended, one after the other.
    Terminate,
    /// PostgreSQL's disk is full for so long.
    FullDisk(Span),
    /// The ZooKeeper server that leads and those that follow it do not hear of each other for so long.
    Split(Span),
    /// A replica can open no file and no connection for so long.
    NoHandles(Span),
}

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// So many times the lease, in percent.
    Leases(u32),
    /// So long.
    For(Duration),
}

impl Span {
    /// The length, where the lease has that one.
    pub fn with_lease(self, lease: Duration) -> Duration {
        match self {
            Self::Leases(percent) => lease * percent / 100,
            Self::For(time) => time,
        }
    }
}

/// A fault that was injected, as the report shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultMark {
    /// Milliseconds after the first order.
    pub at_ms: f64,
    /// When it was over; absent for what has no end of its own.
    pub until_ms: Option<f64>,
    /// What was done, to whom.
    pub what: String,
    /// Which replica it was done to, from 0; absent where it was done to a server, or to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<usize>,
    /// Whether a holder may lose its lock by it.
    #[serde(default)]
    pub costs_leases: bool,
}

impl FaultMark {
    /// Whether it was done to this replica of a laboratory, or to all.
    pub fn affects(&self, replica: &str) -> bool {
        self.replica.is_none_or(|number| replica == format!("replica-{}", number + 1))
    }

    /// The fault as the verdict sees it.
    pub fn broken(&self) -> Broken {
        let ns = |ms: f64| (ms * 1e6) as u64;
        Broken {
            what: self.what.clone(),
            from: ns(self.at_ms),
            until: self.until_ms.map(ns),
            costs_leases: self.costs_leases,
        }
    }
}

/// The faults of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Those with a time.
    pub faults: Vec<Fault>,
    /// Whether others are drawn, one after the other, until the run ends.
    pub random: bool,
}

impl Schedule {
    /// Whether nothing is broken.
    pub fn is_empty(&self) -> bool {
        self.faults.is_empty() && !self.random
    }

    /// Whether all that happens is that slow clients come: what another's deployment can be asked to bear.
    pub fn is_slow_clients(&self) -> bool {
        let slow = |fault: &Fault| fault.what == What::SlowClients;
        !self.random && !self.faults.is_empty() && self.faults.iter().all(slow)
    }

    /// When the last of those with a time is over, under leases of `lease`; `None` where there is none.
    pub fn end(&self, lease: Duration) -> Option<Duration> {
        let lasts = |fault: &Fault| match fault.what {
            What::Pause(span)
            | What::Partition(_, span)
            | What::Stall(_, span)
            | What::FullDisk(span)
            | What::Split(span)
            | What::NoHandles(span) => span.with_lease(lease),
            What::Kill | What::Restart(_) => RESTART,
            What::FailOver(_) => FAIL_OVER,
            What::Latency(..) | What::SlowClients | What::Clock(..) | What::Flush | What::Terminate => {
                Duration::ZERO
            }
        };
        self.faults.iter().map(|fault| fault.at + lasts(fault)).max()
    }

    /// Whether the replicas need proxies before their servers.
    pub fn needs_proxies(&self) -> bool {
        let on_the_way = |fault: &Fault| matches!(fault.what, What::Partition(..) | What::Latency(..));
        self.random || self.faults.iter().any(on_the_way)
    }

    /// Whether servers have to be started so that their clocks can be stepped, and their disks be full.
    pub fn needs_breakable_servers(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault.what, What::Clock(..) | What::FullDisk(_)))
    }

    /// Whether ZooKeeper has to be several servers.
    pub fn needs_ensemble(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault.what, What::Split(_)))
    }

    /// The servers that need another that takes over from them, by their kind's number.
    pub fn fail_overs(&self) -> [bool; 4] {
        ServerKind::ALL.map(|kind| self.faults.iter().any(|fault| fault.what == What::FailOver(kind)))
    }

    /// Refuses what has no meaning for servers of which one takes over from the other.
    fn check(&self) -> Result<(), String> {
        let needs_one = |fault: &&Fault, kind| match fault.what {
            What::Clock(of, _) | What::Partition(of, _) | What::Latency(of, _) => of == kind,
            What::Flush => kind == ServerKind::Redis,
            What::Terminate | What::FullDisk(_) => kind == ServerKind::Postgres,
            _ => false,
        };
        for kind in ServerKind::ALL.into_iter().filter(|kind| self.fail_overs()[kind.number()]) {
            // ZooKeeper's servers are an ensemble in any case.
            let other = self.faults.iter().find(|fault| needs_one(fault, kind));
            let other = other.filter(|_| kind != ServerKind::Zookeeper).map(ToString::to_string);
            if let Some(other) = other.or_else(|| self.random.then(|| "random".to_owned())) {
                return Err(format!(
                    "{other} is for one server alone, and failover:{kind} for two: not both"
                ));
            }
        }
        Ok(())
    }

    /// The schedule of all these texts together.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        let mut schedule = Self::default();
        for text in texts.iter().flat_map(|text| text.split(',')) {
            if text == "random" {
                schedule.random = true;
            } else {
                schedule.faults.push(text.parse()?);
            }
        }
        schedule.check()?;
        schedule.faults.sort_by_key(|fault| fault.at);
        Ok(schedule)
    }
}

/// How long it takes until another server has taken over, about.
const FAIL_OVER: Duration = Duration::from_secs(3);

/// How long a replica or a server is away that is killed and started again.
const RESTART: Duration = Duration::from_secs(1);

/// When a fault may be injected at the latest.
const LATEST: Duration = Duration::from_secs(24 * 3600);

/// What a fault may look like.
pub const FORMS: &str = "kill@3s, pause:2xlease@1s, pause:800ms@1s, restart:redis@2s, failover:postgres@2s, \
                         partition:zookeeper@1s, partition:redis:500ms@1s, latency:postgres:50ms@1s, \
                         pause:postgres:500ms@1s, clock:redis:+3s@1s, flush:redis@1s, terminate:postgres@1s, \
                         disk-full:postgres:1s@1s, split:zookeeper:2xlease@1s, no-handles:1s@1s, \
                         slow-clients or random";

/// That a text is no fault, and what is: the forms of the fault that it names, or all, and the nearest name.
fn refusal(text: &str) -> String {
    let name_of = |text: &'static str| text.split([':', '@']).next().unwrap_or_default();
    let forms = || FORMS.split(", ").flat_map(|form| form.split(" or ")).map(str::trim);
    let name = text.split([':', '@']).next().unwrap_or_default();
    let such: Vec<_> = forms().filter(|form| name_of(form) == name).collect();
    if such.is_empty() {
        let suggestion = did_you_mean(name, forms().map(name_of));
        return format!("{text:?} is no fault; there are {FORMS}{suggestion}");
    }
    format!("{text:?} is no fault; write it as {}", such.join(" or "))
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || refusal(text);
        let time = |text: &str| humantime::parse_duration(text).map_err(|_| refuse());
        let (what, at) = text.split_once('@').unwrap_or((text, "0s"));
        let parts: Vec<_> = what.split(':').collect();
        let span = |text: &str| text.parse::<Span>().map_err(|()| refuse());
        let kind = |text: &str| text.parse::<ServerKind>().map_err(|_| refuse());
        let what = match parts[..] {
            ["kill"] => What::Kill,
            ["pause", server, time] => What::Stall(kind(server)?, span(time)?),
            ["clock", server @ ("zookeeper" | "etcd"), _] => {
                let title = kind(server)?.title();
                return Err(format!("{text:?} is no fault: {title} does not look at the time of day"));
            }
            ["clock", server, step] => {
                let server = kind(server)?;
                let (sign, size) = match (step.strip_prefix('+'), step.strip_prefix('-')) {
                    (Some(size), _) => (1, size),
                    (_, Some(size)) => (-1, size),
                    _ => return Err(refuse()),
                };
                let size = time(size)?;
                if size.subsec_nanos() != 0 || size.is_zero() || size > LATEST {
                    return Err(format!(
                        "{text:?} is no fault: clocks are stepped by whole seconds, a day at most"
                    ));
                }
                What::Clock(server, sign * size.as_secs().cast_signed())
            }
            ["flush", "redis"] => What::Flush,
            ["terminate", "postgres"] => What::Terminate,
            ["disk-full", "postgres", time] => What::FullDisk(span(time)?),
            ["split", "zookeeper"] => What::Split(Span::Leases(200)),
            ["split", "zookeeper", time] => What::Split(span(time)?),
            ["no-handles", time] => What::NoHandles(span(time)?),
            ["pause"] => What::Pause(Span::Leases(200)),
            ["pause", span] => What::Pause(span.parse().map_err(|()| refuse())?),
            ["restart", server] => What::Restart(kind(server)?),
            ["failover", "etcd"] => {
                return Err(format!("{text:?} is no fault: there is one etcd, and none to take over"));
            }
            ["failover", server] => What::FailOver(kind(server)?),
            ["partition", server] => What::Partition(kind(server)?, Span::Leases(200)),
            ["partition", server, span] => {
                What::Partition(kind(server)?, span.parse().map_err(|()| refuse())?)
            }
            ["latency", server, delay] => What::Latency(kind(server)?, time(delay)?),
            ["slow-clients"] => What::SlowClients,
            _ => return Err(refuse()),
        };
        let at = time(at)?;
        if at > LATEST {
            return Err(format!(
                "{text:?} is no fault: it would come later than a day after the first order"
            ));
        }
        Ok(Self { what, at })
    }
}

impl FromStr for Span {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.strip_suffix("xlease") {
            Some(times) => match times.parse::<f64>() {
                Ok(times) if (0.01..=100.0).contains(&times) => {
                    Ok(Self::Leases((times * 100.0).round() as u32))
                }
                _ => Err(()),
            },
            None => humantime::parse_duration(text).map(Self::For).map_err(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_they_are_written() {
        let ms = Duration::from_millis;
        for (text, what, at) in [
            ("kill@3s", What::Kill, 3_000),
            ("pause:2xlease@1s", What::Pause(Span::Leases(200)), 1_000),
            ("pause:1.5xlease", What::Pause(Span::Leases(150)), 0),
            ("pause:0.29xlease", What::Pause(Span::Leases(29)), 0),
            ("pause:800ms@1s", What::Pause(Span::For(ms(800))), 1_000),
            ("restart:redis@2s", What::Restart(ServerKind::Redis), 2_000),
            ("failover:redis@2s", What::FailOver(ServerKind::Redis), 2_000),
            ("partition:zookeeper@1s", What::Partition(ServerKind::Zookeeper, Span::Leases(200)), 1_000),
            ("latency:postgres:50ms@10ms", What::Latency(ServerKind::Postgres, ms(50)), 10),
            ("slow-clients", What::SlowClients, 0),
            ("pause:redis:1xlease", What::Stall(ServerKind::Redis, Span::Leases(100)), 0),
            ("clock:redis:+3s@1s", What::Clock(ServerKind::Redis, 3), 1_000),
            ("clock:postgres:-2s", What::Clock(ServerKind::Postgres, -2), 0),
            ("flush:redis@1s", What::Flush, 1_000),
            ("split:zookeeper@1s", What::Split(Span::Leases(200)), 1_000),
            ("no-handles:500ms", What::NoHandles(Span::For(ms(500))), 0),
        ] {
            assert_eq!(text.parse(), Ok(Fault { what, at: ms(at) }), "{text}");
        }
        for text in [
            "",
            "kil@3s",
            "kill@soon",
            "pause:0xlease",
            "restart",
            "restart:mysql@1s",
            "failover@1s",
            "failover:etcd@1s",
            "latency:redis@1s",
            "clock:redis:3s",
            "clock:zookeeper:+3s",
            "clock:etcd:+3s",
            "clock:redis:+500ms",
            "clock:redis:+0s",
            "kill@9000y",
            "flush:postgres",
            "disk-full:postgres",
        ] {
            let error = text.parse::<Fault>().expect_err(text);
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
        let refused = |text: &str| text.parse::<Fault>().unwrap_err();
        assert!(refused("kil@3s").ends_with("did you mean \"kill\"?"), "{}", refused("kil@3s"));
        let forms = "write it as pause:2xlease@1s or pause:800ms@1s or pause:postgres:500ms@1s";
        assert!(refused("pause:@1s").ends_with(forms), "{}", refused("pause:@1s"));
        let schedule = Schedule::parse(&["kill@3s,pause@1s".into(), "random".into()]).unwrap();
        assert_eq!(schedule.faults.iter().map(|fault| fault.at).collect::<Vec<_>>(), [ms(1_000), ms(3_000)]);
        assert!(schedule.random && schedule.needs_proxies());
        for beside in ["flush:redis", "clock:redis:+3s", "latency:redis:1ms", "partition:redis", "random"] {
            let texts = ["failover:redis@1s".into(), format!("{beside}@2s")];
            let refused = Schedule::parse(&texts.map(|text| text.replace("random@2s", "random")));
            assert!(refused.is_err_and(|error| error.contains("failover:redis")), "{beside}");
        }
        Schedule::parse(&["failover:redis@1s,terminate:postgres@2s,pause:redis:1s@3s".into()]).unwrap();
    }
}
