//! Faults as they are written on a command line.

use std::fmt;
use std::time::Duration;

use super::{Fault, Schedule, Span, What};

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<_> = self.faults.iter().map(ToString::to_string).collect();
        if self.random {
            parts.push("random".into());
        }
        f.write_str(&parts.join(","))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.what, time(self.at))
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Kill => f.write_str("kill"),
            Self::Pause(span) => write!(f, "pause:{span}"),
            Self::Restart(server) => write!(f, "restart:{server}"),
            Self::FailOver(server) => write!(f, "failover:{server}"),
            Self::Partition(server, span) => write!(f, "partition:{server}:{span}"),
            Self::Latency(server, delay) => write!(f, "latency:{server}:{}", time(delay)),
            Self::SlowClients => f.write_str("slow-clients"),
            Self::Stall(server, span) => write!(f, "pause:{server}:{span}"),
            Self::Clock(server, seconds) => write!(f, "clock:{server}:{seconds:+}s"),
            Self::Flush => f.write_str("flush:redis"),
            Self::Terminate => f.write_str("terminate:postgres"),
            Self::FullDisk(span) => write!(f, "disk-full:postgres:{span}"),
            Self::Split(span) => write!(f, "split:zookeeper:{span}"),
            Self::NoHandles(span) => write!(f, "no-handles:{span}"),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leases(percent) => write!(f, "{}xlease", f64::from(*percent) / 100.0),
            Self::For(span) => f.write_str(&time(*span)),
        }
    }
}

fn time(time: Duration) -> String {
    humantime::format_duration(time).to_string().replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let text = "latency:postgres:50ms@0s,kill@10ms,pause:1.5xlease@1s,\
                    partition:redis:2xlease@1s500ms,restart:redis@2s,pause:postgres:1s@3s,\
                    clock:redis:+3s@4s,clock:postgres:-2s@5s,flush:redis@6s,terminate:postgres@7s,\
                    disk-full:postgres:1s@8s,split:zookeeper:1.5xlease@9s,no-handles:500ms@10s,random";
        let schedule = Schedule::parse(&[text.into()]).unwrap();
        assert_eq!(schedule.to_string(), text);
        assert_eq!(Schedule::parse(&[schedule.to_string()]), Ok(schedule));
        let text = "failover:postgres@1s,failover:zookeeper@2s";
        assert_eq!(Schedule::parse(&[text.into()]).unwrap().to_string(), text);
    }
}
