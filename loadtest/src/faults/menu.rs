//! Faults as a menu offers them: what can be broken, of whom, and what its number says.

use std::fmt;

use lab::ServerKind;

use super::{Fault, Span, What};

/// What the number of a fault says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// It has none.
    None,
    /// How long it lasts: a number of leases, or a time.
    Span,
    /// How much longer answers take.
    Delay,
    /// By how many seconds a clock is stepped, forward or back.
    Step,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "must be empty: it has no length of its own",
            Self::Span => "must be from 0.01 to 100 leases, or a time",
            Self::Delay => "must be a time in s or ms",
            Self::Step => "must be whole seconds, of a day at most; less than zero is back",
        })
    }
}

/// How long what lasts goes on, where nothing else is said.
const USUAL: Span = Span::Leases(200);

impl What {
    /// All that can be broken, each with its usual size: first what strikes a replica, then what strikes each
    /// server.
    pub fn all() -> Vec<Self> {
        let replicas = [Self::Kill, Self::Pause(USUAL), Self::NoHandles(USUAL), Self::SlowClients];
        replicas.into_iter().chain(ServerKind::ALL.into_iter().flat_map(Self::of_server)).collect()
    }

    fn of_server(kind: ServerKind) -> Vec<Self> {
        let delay = std::time::Duration::from_millis(50);
        let mut all = vec![Self::Restart(kind), Self::Stall(kind, USUAL)];
        all.extend((kind != ServerKind::Etcd).then_some(Self::FailOver(kind)));
        all.extend([Self::Partition(kind, USUAL), Self::Latency(kind, delay)]);
        all.extend(match kind {
            ServerKind::Postgres => vec![Self::Clock(kind, 3), Self::Terminate, Self::FullDisk(USUAL)],
            ServerKind::Redis => vec![Self::Clock(kind, 3), Self::Flush],
            ServerKind::Zookeeper => vec![Self::Split(USUAL)],
            ServerKind::Etcd => Vec::new(),
        });
        all
    }

    /// The server that it strikes; `None` where it strikes a replica.
    pub fn server(self) -> Option<ServerKind> {
        match self {
            Self::Kill | Self::Pause(_) | Self::NoHandles(_) | Self::SlowClients => None,
            Self::Restart(kind)
            | Self::FailOver(kind)
            | Self::Partition(kind, _)
            | Self::Latency(kind, _)
            | Self::Stall(kind, _)
            | Self::Clock(kind, _) => Some(kind),
            Self::Flush => Some(ServerKind::Redis),
            Self::Terminate | Self::FullDisk(_) => Some(ServerKind::Postgres),
            Self::Split(_) => Some(ServerKind::Zookeeper),
        }
    }

    /// What happens to whom it strikes, in a few words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Kill => "the holder is killed and started again",
            Self::Pause(_) => "the holder is stopped, and goes on",
            Self::NoHandles(_) => "the holder can open no file and no connection",
            Self::SlowClients => "slow clients come to all of them",
            Self::Restart(_) => "is killed and started again",
            Self::FailOver(_) => "is killed, and another takes over",
            Self::Partition(..) => "is cut off from the holder",
            Self::Latency(..) => "answers later, until the end",
            Self::Stall(..) => "is stopped, and goes on",
            Self::Clock(..) => "has its clock stepped",
            Self::Flush => "forgets everything",
            Self::Terminate => "ends its connections, one by one",
            Self::FullDisk(_) => "has a full disk",
            Self::Split(_) => "is split: the leader here, the others there",
        }
    }

    /// What its number says.
    pub fn size(self) -> Size {
        match self {
            Self::Pause(_)
            | Self::Partition(..)
            | Self::Stall(..)
            | Self::FullDisk(_)
            | Self::Split(_)
            | Self::NoHandles(_) => Size::Span,
            Self::Latency(..) => Size::Delay,
            Self::Clock(..) => Size::Step,
            Self::Kill
            | Self::Restart(_)
            | Self::FailOver(_)
            | Self::SlowClients
            | Self::Flush
            | Self::Terminate => Size::None,
        }
    }

    /// The same of another size: `2xlease`, `500ms`, `-3s`. An error says what the size must be.
    pub fn sized(self, size: &str) -> Result<Self, String> {
        let refused = || self.size().to_string();
        let text = self.to_string();
        let (name, _) = text.rsplit_once(':').filter(|_| self.size() != Size::None).ok_or_else(refused)?;
        let sign = if self.size() == Size::Step && !size.starts_with(['+', '-']) { "+" } else { "" };
        let fault: Fault = format!("{name}:{sign}{size}").parse().map_err(|_| refused())?;
        Ok(fault.what)
    }
}

#[cfg(test)]
mod tests {
    use std::mem::discriminant;
    use std::time::Duration;

    use super::*;
    use crate::faults::FORMS;

    #[test]
    fn the_menu_offers_whatever_can_be_written() {
        let all = What::all();
        let forms: Vec<_> = FORMS.split([',', ' ']).filter_map(|form| form.parse::<Fault>().ok()).collect();
        assert!(forms.len() > 12, "{forms:?}");
        for form in forms {
            let is_it = |what: &What| {
                discriminant(what) == discriminant(&form.what) && what.server() == form.what.server()
            };
            assert!(all.iter().any(is_it), "{form} is not offered");
        }
        for what in all {
            assert_eq!(what.to_string().parse(), Ok(Fault { what, at: Duration::ZERO }));
        }
    }

    #[test]
    fn a_size_is_put_in_place_of_the_usual_one() {
        let sized = |what: &str, size: &str| {
            let fault: Fault = what.parse().unwrap();
            fault.what.sized(size).map(|what| what.to_string())
        };
        assert_eq!(sized("pause:redis:2xlease", "500ms"), Ok("pause:redis:500ms".into()));
        assert_eq!(sized("pause", "1.5xlease"), Ok("pause:1.5xlease".into()));
        assert_eq!(sized("clock:redis:+3s", "5s"), Ok("clock:redis:+5s".into()));
        assert_eq!(sized("clock:redis:+3s", "-5s"), Ok("clock:redis:-5s".into()));
        for (what, size, words) in [
            ("kill", "2s", "no length of its own"),
            ("pause", "500xlease", "leases"),
            ("latency:redis:50ms", "2xlease", "a time"),
            ("clock:redis:+3s", "500ms", "whole seconds"),
        ] {
            assert!(sized(what, size).expect_err(what).contains(words), "{what} {size}");
        }
    }
}
