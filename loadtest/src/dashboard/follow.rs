//! Follows the lock while a run goes on: asks each replica again and again for its latest holds.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use order_service::api::Clock;
use order_service::clock::now_ns;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::client::Client;
use crate::progress::{Beginning, Progress};
use crate::series::LiveLocks;

/// How often a replica is asked. An answer has what is new since the last one, of which there is little.
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// How long an answer is waited for before it is said that there is none.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often it is looked whether the run has begun.
const LOOK: Duration = Duration::from_millis(5);

/// The holds so far. Its drop ends the asking.
pub(super) struct Followed {
    locks: Arc<Mutex<Option<LiveLocks>>>,
    _asking: JoinSet<()>,
}

impl Followed {
    /// Follows the lock of the product that is sold in the run of `progress`, once that has begun.
    pub(super) fn start(clients: &[Client], progress: &Arc<Progress>) -> Self {
        let locks = Arc::new(Mutex::new(None));
        let mut asking = JoinSet::new();
        for (number, client) in clients.iter().enumerate() {
            let replica = Replica { client: client.clone(), number, of: clients.len() };
            asking.spawn(replica.follow(Arc::clone(progress), Arc::clone(&locks)));
        }
        Self { locks, _asking: asking }
    }

    /// What the replicas have said; `None` before the run has begun.
    pub(super) fn locks(&self) -> MutexGuard<'_, Option<LiveLocks>> {
        lock(&self.locks)
    }
}

/// Whom to ask.
struct Replica {
    client: Client,
    number: usize,
    of: usize,
}

impl Replica {
    async fn follow(self, progress: Arc<Progress>, locks: Arc<Mutex<Option<LiveLocks>>>) {
        let Beginning { sku, begun_ns } = loop {
            match progress.beginning() {
                Some(beginning) => break beginning,
                None => sleep(LOOK).await,
            }
        };
        lock(&locks).get_or_insert_with(|| LiveLocks::new(self.of, *begun_ns));
        // Not all are asked at the same moment.
        sleep(ASKED_EVERY * self.number as u32 / self.of as u32).await;
        let mut ticks = interval(ASKED_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let after_ns = lock(&locks).as_ref().map_or(0, |locks| locks.after_ns(self.number));
            let asked = now_ns();
            let answer = timeout(PATIENCE, self.client.holds_after(sku, after_ns)).await;
            let mut locks = lock(&locks);
            let Some(locks) = locks.as_mut() else { return };
            match answer {
                Ok(Ok(record))
                    if record.clock == Clock::Host && (asked..=now_ns()).contains(&record.now_ns) =>
                {
                    locks.hear(self.number, record);
                }
                Ok(Ok(_)) => locks.miss(self.number, "it is on another host, with a clock of its own".into()),
                Ok(Err(_)) => locks.miss(self.number, "it cannot be reached".into()),
                Err(_) => locks.miss(self.number, "it does not answer".into()),
            }
        }
    }
}

fn lock(locks: &Mutex<Option<LiveLocks>>) -> MutexGuard<'_, Option<LiveLocks>> {
    locks.lock().expect("nothing panics while it holds this")
}
