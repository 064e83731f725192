//! The clock by which holds are recorded.

/// The present, in nanoseconds of the monotonic clock that all processes of the host share.
#[cfg(unix)]
pub fn now_ns() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every unix has a monotonic clock");
    u64::try_from(std::time::Duration::from(now).as_nanos())
        .expect("the host has been up for less than 500 years")
}

/// The present, in nanoseconds since this process first asked.
#[cfg(not(unix))]
pub fn now_ns() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    let running = START.get_or_init(Instant::now).elapsed();
    u64::try_from(running.as_nanos()).expect("the process has been running for less than 500 years")
}
