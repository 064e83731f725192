//! The renewal of leases, for as long as they are held: one task for all leases of a lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Backend, BackendError, Claim};
use crate::config::LeaseTime;
use crate::lock::Validity;
use crate::lock::lease::valid_until;

/// How often a lease without end is looked after: its record may have been deleted by an operator.
const WITHOUT_END: Duration = Duration::from_secs(3);

/// The task that renews; its drop stops it.
pub(super) struct Renewer {
    leases: Arc<Leases>,
    task: JoinHandle<()>,
}

/// All leases that are held.
struct Leases {
    /// Of each lease, where it has an end.
    length: LeaseTime,
    held: Mutex<HeldLeases>,
    /// Wakes the task, which sleeps until there is a lease.
    begun: Notify,
}

#[derive(Default)]
struct HeldLeases {
    leases: HashMap<u64, Renewed>,
    next_id: u64,
    /// Whether the task sleeps until there is a lease.
    sleeps: bool,
}

struct Renewed {
    claim: Arc<Claim>,
    validity: Validity,
    /// `None` while a renewal is in flight.
    next: Option<Instant>,
}

/// A lease that is renewed until this is dropped.
pub(super) struct Renewal {
    leases: Arc<Leases>,
    id: u64,
}

impl Renewer {
    pub(super) fn start(backend: &Arc<dyn Backend>, length: LeaseTime, renewals: Counter) -> Self {
        let leases = Arc::new(Leases { length, held: Mutex::default(), begun: Notify::new() });
        let task = tokio::spawn(Arc::clone(&leases).look_after(Arc::downgrade(backend), renewals));
        Self { leases, task }
    }

    /// Renews the claim's lease three times in its length, until it is another's or cannot be renewed in
    /// time; then declares the lease lost.
    pub(super) fn renew(&self, claim: &Arc<Claim>, validity: &Validity) -> Renewal {
        let (claim, validity) = (Arc::clone(claim), validity.clone());
        let next = Some(Instant::now() + self.leases.interval());
        let mut held = self.leases.held();
        let id = held.next_id;
        held.next_id += 1;
        held.leases.insert(id, Renewed { claim, validity, next });
        // Otherwise it sleeps until an earlier lease is due.
        if std::mem::take(&mut held.sleeps) {
            self.leases.begun.notify_one();
        }
        Renewal { leases: Arc::clone(&self.leases), id }
    }
}

impl Drop for Renewer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.leases.held().leases.remove(&self.id);
    }
}

impl Leases {
    fn held(&self) -> MutexGuard<'_, HeldLeases> {
        self.held.lock().expect("nothing panics while it holds this")
    }

    fn interval(&self) -> Duration {
        self.length.duration().unwrap_or(WITHOUT_END) / 3
    }

    async fn look_after(self: Arc<Self>, backend: Weak<dyn Backend>, renewals: Counter) {
        loop {
            let (due, wake) = self.due();
            if !due.is_empty() {
                let Some(backend) = backend.upgrade() else { return };
                // In a task of its own: a backend that hangs must not keep the next ones from being renewed.
                tokio::spawn(Arc::clone(&self).renew(backend, due, renewals.clone()));
            }
            match wake {
                Some(wake) => sleep_until(wake).await,
                None => self.begun.notified().await,
            }
        }
    }

    /// The leases to be renewed now, whose renewal is in flight from here on, and when to come back; `None`:
    /// when there is a lease.
    fn due(&self) -> (Vec<(u64, Arc<Claim>)>, Option<Instant>) {
        let now = Instant::now();
        // Those that would be due soon go with the others.
        let soon = now + self.interval() / 8;
        let mut held = self.held();
        let mut due = Vec::new();
        for (id, lease) in &mut held.leases {
            if lease.next.is_some_and(|next| next <= soon) {
                lease.next = None;
                due.push((*id, Arc::clone(&lease.claim)));
            }
        }
        held.sleeps = held.leases.is_empty();
        // What is in flight may be due again as soon as it has failed.
        let retry = now + self.interval() / 6;
        let wake = held.leases.values().map(|lease| lease.next.unwrap_or(retry)).min();
        (due, wake)
    }

    async fn renew(
        self: Arc<Self>,
        backend: Arc<dyn Backend>,
        due: Vec<(u64, Arc<Claim>)>,
        renewals: Counter,
    ) {
        let (ids, claims): (Vec<_>, Vec<_>) = due.into_iter().unzip();
        let sent = Instant::now();
        let outcomes = timeout(self.interval() * 3, backend.renew(&claims)).await;
        let timed_out = || vec![Err(BackendError::Failed("no answer in time".into())); claims.len()];
        let mut held = self.held();
        for (id, outcome) in ids.into_iter().zip(outcomes.unwrap_or_else(|_| timed_out())) {
            // One that has ended meanwhile is no more.
            let Some(lease) = held.leases.get_mut(&id) else { continue };
            let is_kept = match (&outcome, self.length) {
                (Ok(false), _) => false,
                (Ok(true), LeaseTime::For(length)) => lease.validity.renew(valid_until(sent, length)),
                (Ok(true), LeaseTime::Never) => true,
                // Its fate is not known, and the lease may still run.
                (Err(_), _) => lease.validity.check().is_ok(),
            };
            if is_kept {
                renewals.inc_by(u64::from(outcome.is_ok()));
                // After a failure, soon.
                let pause = if outcome.is_ok() { self.interval() } else { self.interval() / 6 };
                lease.next = Some(if outcome.is_ok() { sent } else { Instant::now() } + pause);
            } else {
                lease.validity.lose();
                held.leases.remove(&id);
            }
        }
    }
}
