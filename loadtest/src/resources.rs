//! What the replicas need of the machine, and whether that grows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

/// How often the processes are looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Until a process has the connections, threads and buffers that it needs.
const WARM: Duration = Duration::from_secs(5);

/// How long a process has to live beyond that for its growth to say anything.
const LONG: Duration = Duration::from_secs(10);

/// The processes of a fleet, by name; those who start them keep it up to date.
pub type Roster = Arc<Mutex<BTreeMap<String, i32>>>;

/// What the replicas needed in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// The most resident memory of any, in MiB.
    pub resident_mib: f64,
    /// The most file handles of any: connections, mostly, which come and go with buyers who turn to another replica.
    pub handles: u64,
    /// How many processes lived for long enough to see whether they grow.
    pub long_lives: usize,
    /// How much memory the one that grew most had at its end, for each byte that it had when it was warm; at least 1.
    pub memory_growth: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    resident_kib: u64,
    handles: u64,
}

struct Life {
    begun: Instant,
    seen: Instant,
    warm: Option<Sample>,
    last: Sample,
}

/// Looks at processes until it is asked what it saw.
pub struct Sampler {
    lives: Arc<Mutex<BTreeMap<i32, Life>>>,
    task: JoinHandle<()>,
    most: Arc<Mutex<Sample>>,
}

impl Sampler {
    /// Looks at whoever is on the roster from now on.
    pub fn start(roster: &Roster) -> Self {
        let lives = Arc::new(Mutex::new(BTreeMap::<i32, Life>::new()));
        let most = Arc::new(Mutex::new(Sample::default()));
        let (roster, seen, greatest) = (Arc::clone(roster), Arc::clone(&lives), Arc::clone(&most));
        let task = tokio::spawn(async move {
            loop {
                let pids: Vec<_> = roster.lock().expect("nobody panics").values().copied().collect();
                for pid in pids {
                    let Some(sample) = sample(pid) else { continue };
                    let now = Instant::now();
                    let mut lives = seen.lock().expect("nobody panics");
                    let life =
                        lives.entry(pid).or_insert(Life { begun: now, seen: now, warm: None, last: sample });
                    if life.warm.is_none() && life.begun.elapsed() >= WARM {
                        life.warm = Some(sample);
                    }
                    (life.last, life.seen) = (sample, now);
                    let mut most = greatest.lock().expect("nobody panics");
                    most.resident_kib = most.resident_kib.max(sample.resident_kib);
                    most.handles = most.handles.max(sample.handles);
                }
                tokio::time::sleep(INTERVAL).await;
            }
        });
        Self { lives, task, most }
    }

    /// What was seen; `None` where processes cannot be looked at.
    pub fn finish(self) -> Option<Resources> {
        let most = *self.most.lock().expect("nobody panics");
        if most.handles == 0 {
            return None;
        }
        let lives = self.lives.lock().expect("nobody panics");
        let long: Vec<_> = lives
            .values()
            .filter(|life| life.seen - life.begun >= WARM + LONG)
            .filter_map(|life| Some((life.warm?, life.last)))
            .collect();
        let growths =
            long.iter().map(|(warm, last)| last.resident_kib as f64 / warm.resident_kib.max(1) as f64);
        let memory_growth = growths.fold(1.0, f64::max);
        Some(Resources {
            resident_mib: most.resident_kib as f64 / 1024.0,
            handles: most.handles,
            long_lives: long.len(),
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
        let roster = Roster::new(Mutex::new(BTreeMap::from([("own".to_owned(), own)])));
        let sampler = Sampler::start(&roster);
        while sampler.lives.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let seen = sampler.finish().expect("Linux says so");
        assert!(seen.resident_mib > 1.0 && seen.handles > 2, "{seen:?}");
        assert_eq!((seen.long_lives, seen.memory_growth), (0, 1.0));
    }
}
