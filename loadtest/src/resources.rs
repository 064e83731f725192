//! What the replicas need of the machine, and whether that grows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

/// How often the processes are sampled.
const INTERVAL: Duration = Duration::from_millis(500);

/// Until a process has the connections, threads and buffers that it needs.
const WARM: Duration = Duration::from_secs(5);

/// For how long beyond that a process has to be sampled for its growth to say anything.
const LONG: Duration = Duration::from_secs(10);

/// The ids of a fleet's processes, by name. Who starts a process adds it.
pub type Processes = Arc<Mutex<BTreeMap<String, i32>>>;

/// What the replicas needed in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// The most resident memory of any, in MiB.
    pub resident_mib: f64,
    /// The most file handles of any: connections, mostly, which come and go with buyers who turn to another
    /// replica.
    pub handles: u64,
    /// How many processes were sampled for long enough to see whether they grow.
    #[serde(rename = "long_lives")]
    pub long_lived: usize,
    /// The memory that the one that grew most had at its end, as a multiple of what it had when it was warm;
    /// at least 1.
    pub memory_growth: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    resident_kib: u64,
    handles: u64,
}

/// What was sampled of one process.
struct Observation {
    begun: Instant,
    seen: Instant,
    warm: Option<Sample>,
    last: Sample,
}

/// Samples processes until it is asked what they needed, or dropped.
pub struct Sampler {
    observations: Arc<Mutex<BTreeMap<i32, Observation>>>,
    task: JoinHandle<()>,
    most: Arc<Mutex<Sample>>,
}

impl Sampler {
    /// Samples these processes from now on, and those that are added to them.
    pub fn start(processes: &Processes) -> Self {
        let observations = Arc::new(Mutex::new(BTreeMap::<i32, Observation>::new()));
        let most = Arc::new(Mutex::new(Sample::default()));
        let (processes, seen, greatest) =
            (Arc::clone(processes), Arc::clone(&observations), Arc::clone(&most));
        let task = tokio::spawn(async move {
            loop {
                let pids: Vec<_> =
                    processes.lock().expect("no holder of it panics").values().copied().collect();
                for pid in pids {
                    let Some(sample) = sample(pid) else { continue };
                    let now = Instant::now();
                    let mut observations = seen.lock().expect("no holder of it panics");
                    let observation = observations.entry(pid).or_insert(Observation {
                        begun: now,
                        seen: now,
                        warm: None,
                        last: sample,
                    });
                    if observation.warm.is_none() && observation.begun.elapsed() >= WARM {
                        observation.warm = Some(sample);
                    }
                    (observation.last, observation.seen) = (sample, now);
                    let mut most = greatest.lock().expect("no holder of it panics");
                    most.resident_kib = most.resident_kib.max(sample.resident_kib);
                    most.handles = most.handles.max(sample.handles);
                }
                tokio::time::sleep(INTERVAL).await;
            }
        });
        Self { observations, task, most }
    }

    /// What the processes needed; `None` where the system does not say.
    pub fn finish(self) -> Option<Resources> {
        let most = *self.most.lock().expect("no holder of it panics");
        if most.handles == 0 {
            return None;
        }
        let observations = self.observations.lock().expect("no holder of it panics");
        let long: Vec<_> = observations
            .values()
            .filter(|observation| observation.seen - observation.begun >= WARM + LONG)
            .filter_map(|observation| Some((observation.warm?, observation.last)))
            .collect();
        let growths =
            long.iter().map(|(warm, last)| last.resident_kib as f64 / warm.resident_kib.max(1) as f64);
        let memory_growth = growths.fold(1.0, f64::max);
        Some(Resources {
            resident_mib: most.resident_kib as f64 / 1024.0,
            handles: most.handles,
            long_lived: long.len(),
            memory_growth,
        })
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What Linux says of a process; `None` for one that has ended, and elsewhere.
fn sample(pid: i32) -> Option<Sample> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let resident_kib = resident.trim().trim_end_matches(" kB").parse().ok()?;
    let handles = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    Some(Sample { resident_kib, handles })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_very_process_needs_something() {
        let own = i32::try_from(std::process::id()).unwrap();
        let processes = Processes::new(Mutex::new(BTreeMap::from([("own".to_owned(), own)])));
        let sampler = Sampler::start(&processes);
        while sampler.observations.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let seen = sampler.finish().expect("Linux says so");
        assert!(seen.resident_mib > 1.0 && seen.handles > 2, "{seen:?}");
        assert_eq!((seen.long_lived, seen.memory_growth), (0, 1.0));
    }
}
