//! The machine and the program that figures were measured with: they mean nothing without it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A machine and a program, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// When it was described.
    pub at: Timestamp,
    /// The version of the load generator.
    pub version: String,
    /// How the program was built.
    pub build: BuildProfile,
    /// The system and its version.
    pub system: String,
    /// The processor.
    pub processor: String,
    /// How many processors the program may use.
    pub processors: usize,
    /// Main memory in MiB; 0 where that is not known.
    pub memory_mib: u64,
}

/// How a program was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildProfile {
    /// Without optimization and with assertions: its figures say little of cost.
    Debug,
    /// With optimization.
    Release,
}

impl BuildProfile {
    fn of_this_program() -> Self {
        if cfg!(debug_assertions) { Self::Debug } else { Self::Release }
    }
}

impl fmt::Display for BuildProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Debug => "debug",
            Self::Release => "release",
        })
    }
}

impl Environment {
    /// This machine, now.
    pub fn here() -> Self {
        let field = |file: &str, name: &str| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
        let kib = memory.trim_end_matches(" kB").parse::<u64>().unwrap_or_default();
        Self {
            at: Timestamp::now(),
            version: env!("CARGO_PKG_VERSION").into(),
            build: BuildProfile::of_this_program(),
            system: format!("{} {}", std::env::consts::OS, release.trim()).trim().into(),
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib / 1024,
        }
    }
}
