//! What the operating system says of the process, under the names that Prometheus' clients share. Asked for
//! each time that metrics are shown; what a system does not say is left out.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The metrics of this process.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut add = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        if let Some(seconds) = system::cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            add("process_cpu_seconds", "User and system time of the processors.", &counter)?;
        }
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory.", system::resident_bytes()),
            ("process_threads", "Threads.", system::threads()),
            ("process_open_fds", "Open file handles.", system::open_files()),
            ("process_max_fds", "The most file handles that may be open.", system::most_files()),
            ("process_start_time_seconds", "Start, since the Unix epoch.", system::started()),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                add(name, help, &ConstGauge::new(value))?;
            }
        }
        Ok(())
    }
}

/// Linux, by its files in /proc.
#[cfg(target_os = "linux")]
mod system {
    use std::fs;

    use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
    use nix::sys::time::TimeValLike as _;

    /// The clock ticks of /proc in a second: the same on all architectures of ours.
    const TICKS: f64 = 100.0;

    pub fn cpu_seconds() -> Option<f64> {
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
        Some((usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6)
    }

    pub fn resident_bytes() -> Option<f64> {
        status("VmRSS:").map(|kibibytes| kibibytes * 1024.0)
    }

    pub fn threads() -> Option<f64> {
        status("Threads:")
    }

    pub fn open_files() -> Option<f64> {
        // But for the one by which they are listed.
        Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64 - 1.0)
    }

    pub fn most_files() -> Option<f64> {
        getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft as f64)
    }

    pub fn started() -> Option<f64> {
        let process = fs::read_to_string("/proc/self/stat").ok()?;
        // Behind the name, which may have spaces and brackets: the 22nd field of all.
        let ticks: f64 = process.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        let system = fs::read_to_string("/proc/stat").ok()?;
        let booted: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        Some(booted + ticks / TICKS)
    }

    fn status(field: &str) -> Option<f64> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let value = status.lines().find_map(|line| line.strip_prefix(field))?;
        value.split_whitespace().next()?.parse().ok()
    }
}

/// Others, which are not asked.
#[cfg(not(target_os = "linux"))]
mod system {
    pub use self::unknown as cpu_seconds;
    pub use self::unknown as resident_bytes;
    pub use self::unknown as threads;
    pub use self::unknown as open_files;
    pub use self::unknown as most_files;
    pub use self::unknown as started;

    pub fn unknown() -> Option<f64> {
        None
    }
}
