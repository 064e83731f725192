//! The machine and the program that figures were measured with: they mean nothing without it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A machine and a program, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// When it was described.
    pub at: Timestamp,
    /// The version of the load generator.
    pub version: String,
    /// `release` or `debug`: figures of a debug build say little of cost.
    pub build: String,
    /// The system and its version.
    pub system: String,
    /// The processor.
    pub processor: String,
    /// How many processors the program may use.
    pub processors: usize,
    /// Main memory in MiB; 0 where that is not known.
    pub memory_mib: u64,
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
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.into(),
            system: format!("{} {}", std::env::consts::OS, release.trim()).trim().into(),
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib / 1024,
        }
    }
}
