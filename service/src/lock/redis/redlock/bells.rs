//! Announcements of releases: a lock is worth asking for when a majority has released it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::leased::Wakeups;

/// How long an announcement waits for those of other servers: they are sent at the same time.
const TOGETHER: Duration = Duration::from_millis(30);

/// How many keys may have announcements that came to nothing before these are forgotten.
const MOST_KEYS: usize = 1_024;

/// Wakes those who wait when enough servers have announced a release.
pub(super) struct Bells {
    enough: usize,
    wakeups: Arc<Wakeups>,
    rung: Mutex<HashMap<String, Rung>>,
}

/// What was announced of a key.
struct Rung {
    since: Instant,
    /// By which servers.
    by: Vec<usize>,
    /// As it was announced.
    texts: Vec<String>,
}

impl Bells {
    pub(super) fn new(enough: usize, wakeups: &Arc<Wakeups>) -> Self {
        Self { enough, wakeups: Arc::clone(wakeups), rung: Mutex::default() }
    }

    /// A server announces that a lock was released: "OWNER KEY", or " KEY" for all who wait for it. Where
    /// servers name different owners, all are woken.
    pub(super) fn announced(&self, server: usize, text: &str) {
        let key = text.split_once(' ').map_or(text, |(_, key)| key);
        let texts = {
            let mut all = self.rung.lock().expect("nothing panics while it holds this");
            if all.len() > MOST_KEYS {
                all.retain(|_, rung| rung.since.elapsed() < TOGETHER);
            }
            let fresh = || Rung { since: Instant::now(), by: Vec::new(), texts: Vec::new() };
            let rung = all.entry(key.to_owned()).or_insert_with(fresh);
            // Too old, or a second release: it begins anew.
            if rung.since.elapsed() >= TOGETHER {
                *rung = fresh();
            }
            if !rung.by.contains(&server) {
                rung.by.push(server);
            }
            if !rung.texts.iter().any(|known| known == text) {
                rung.texts.push(text.to_owned());
            }
            if rung.by.len() < self.enough {
                return;
            }
            all.remove(key).map(|rung| rung.texts).unwrap_or_default()
        };
        texts.iter().for_each(|text| self.wakeups.announced(text));
    }

    /// Announcements may have been missed.
    pub(super) fn interrupted(&self) {
        self.wakeups.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};
    use uuid::Uuid;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_woken_when_a_majority_has_released() {
        let wakeups = Arc::new(Wakeups::default());
        let bells = Bells::new(2, &wakeups);
        let owner = Uuid::from_u128(1);
        let waiter = wakeups.register(&"k".into(), owner);
        let is_woken = async || timeout(Duration::from_millis(1), waiter.woken()).await.is_ok();
        let text = format!("{owner} k");
        bells.announced(0, &text);
        bells.announced(0, &text);
        bells.announced(1, " other");
        assert!(!is_woken().await, "one server is no majority");
        bells.announced(2, &text);
        assert!(is_woken().await);
        bells.announced(0, &text);
        advance(TOGETHER).await;
        bells.announced(1, &text);
        assert!(!is_woken().await, "the first was of an earlier release");
        bells.announced(2, &format!("{} k", Uuid::from_u128(2)));
        assert!(is_woken().await, "servers that name different owners wake them all");
    }
}
