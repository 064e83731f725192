//! Faults on purpose at the edges of the critical section, for experiments and tests.
//!
//! What a crash or a pause does depends on where it happens: between read and write it must not lose a sale,
//! between commit and answer it must not sell twice, before the release it must not keep others out for ever.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::RngExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest stall that may be configured.
const LONGEST: Duration = Duration::from_secs(3600);

/// A place where something may go wrong; by default nothing does.
#[derive(Debug, Clone, Copy, PartialEq, Default, JsonSchema)]
#[schemars(with = "String")]
pub struct Failpoint(Option<Fault>);

/// What goes wrong, and how often.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Fault {
    /// In how many of 100 cases, where it is not in all: more than 0, at most 100.
    percent: Option<f64>,
    action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Action {
    /// The process ends at once.
    Abort,
    /// Whoever comes by waits; everything else in the process goes on, renewals of leases too.
    Stall(Duration),
}

impl Failpoint {
    /// Comes by the place.
    pub async fn hit(&self) {
        let Some(Fault { percent, action }) = self.0 else { return };
        if percent.is_some_and(|percent| !rand::rng().random_bool(percent / 100.0)) {
            return;
        }
        match action {
            Action::Abort => abort(),
            Action::Stall(duration) => tokio::time::sleep(duration).await,
        }
    }
}

/// Ends the process as kill -9 does: nothing is flushed, closed or released.
fn abort() -> ! {
    #[cfg(unix)]
    nix::sys::signal::raise(nix::sys::signal::SIGKILL).ok();
    std::process::abort()
}

impl FromStr for Failpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        Fault::parse(text).map(|fault| Self(Some(fault))).ok_or_else(|| {
            let longest = humantime::format_duration(LONGEST);
            format!(
                "expected \"abort\" or \"stall 2s\" (at most {longest}), with a share such as \"5% \" before \
                 it unless it is to happen always, or nothing; not {text:?}"
            )
        })
    }
}

impl Fault {
    fn parse(text: &str) -> Option<Self> {
        let (percent, action) = match text.split_once("% ") {
            Some((percent, action)) => (Some(percent.parse().ok()?), action),
            None => (None, text),
        };
        if percent.is_some_and(|percent| !(percent > 0.0 && percent <= 100.0)) {
            return None;
        }
        let action = match action.split_once(' ') {
            None if action == "abort" => Action::Abort,
            Some(("stall", duration)) => Action::Stall(humantime::parse_duration(duration).ok()?),
            _ => return None,
        };
        match action {
            Action::Stall(duration) if duration.is_zero() || duration > LONGEST => None,
            action => Some(Self { percent, action }),
        }
    }
}

impl fmt::Display for Failpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Fault { percent, action }) = self.0 else { return Ok(()) };
        if let Some(percent) = percent {
            write!(f, "{percent}% ")?;
        }
        match action {
            Action::Abort => f.write_str("abort"),
            Action::Stall(duration) => write!(f, "stall {}", humantime::format_duration(duration)),
        }
    }
}

impl Serialize for Failpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Failpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
