//! What each claim was asked of, for as long as something of it may be left on a server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::node::Node;
use crate::lock::leased::Claim;
use crate::lock::redis::protocol::COMMAND;

/// The pause after a release that failed, which doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause between two releases of the same thing.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// All claims of a lock that may have something on a server.
#[derive(Default)]
pub(super) struct Claims(Mutex<HashMap<Uuid, Arc<Traces>>>);

/// What a claim may have on the servers.
pub(super) struct Traces {
    /// Its place among those who wait, as a majority gave it; 0 while there is none.
    ticket: AtomicI64,
    /// Since when no majority has answered it.
    unanswered: Mutex<Option<Instant>>,
    on: Vec<Trace>,
    /// On how many servers it is released.
    released: watch::Sender<usize>,
}

/// What a claim may have on one server.
struct Trace {
    /// Requests for a claim are carried out in turn: what gives back must not overtake what takes.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Whether the server was asked for anything.
    is_asked: AtomicBool,
    /// Whether a request was lost, which may be carried out later than what came after it.
    is_doubtful: AtomicBool,
    /// Whether it is being released.
    is_released: AtomicBool,
}

/// The turn of one request on one server.
pub(super) type Turn = OwnedMutexGuard<()>;

impl Traces {
    fn new(servers: usize, is_asked: bool) -> Self {
        let trace = || Trace {
            turn: Arc::default(),
            is_asked: AtomicBool::new(is_asked),
            is_doubtful: AtomicBool::new(false),
            is_released: AtomicBool::new(false),
        };
        let on = (0..servers).map(|_| trace()).collect();
        let (ticket, unanswered) = (AtomicI64::new(0), Mutex::default());
        Self { ticket, unanswered, on, released: watch::Sender::new(0) }
    }

    /// The claim's ticket.
    pub(super) fn ticket(&self) -> Option<i64> {
        Some(self.ticket.load(Ordering::Acquire)).filter(|ticket| *ticket != 0)
    }

    pub(super) fn set_ticket(&self, ticket: i64) {
        self.ticket.store(ticket, Ordering::Release);
    }

    /// Since when no majority has answered it.
    pub(super) fn unanswered(&self) -> MutexGuard<'_, Option<Instant>> {
        self.unanswered.lock().expect("nothing panics while it holds this")
    }

    /// The turn to ask a server for something; `None` while an earlier request goes on.
    pub(super) fn turn(&self, server: usize) -> Option<Turn> {
        let trace = &self.on[server];
        let turn = Arc::clone(&trace.turn).try_lock_owned().ok()?;
        trace.is_asked.store(true, Ordering::Release);
        Some(turn)
    }

    /// Notes that a request to a server was lost.
    pub(super) fn doubt(&self, server: usize) {
        self.on[server].is_doubtful.store(true, Ordering::Release);
    }
}

impl Claims {
    fn all(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Traces>>> {
        self.0.lock().expect("nothing panics while it holds this")
    }

    /// The traces of a claim that asks.
    pub(super) fn of(&self, claim: &Claim, servers: usize) -> Arc<Traces> {
        let mut all = self.all();
        Arc::clone(all.entry(claim.owner).or_insert_with(|| Arc::new(Traces::new(servers, false))))
    }

    /// Whether nothing is left on any server, as far as is known.
    pub(super) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// Releases on all servers; returns when that is done on so many. The others go on by themselves until
    /// the lease is over.
    pub(super) async fn release(self: &Arc<Self>, claim: &Arc<Claim>, nodes: &[Arc<Node>], enough: usize) {
        let traces = {
            let mut all = self.all();
            // What is not known any more was released before: it is released again, everywhere.
            let known = all.entry(claim.owner);
            Arc::clone(known.or_insert_with(|| Arc::new(Traces::new(nodes.len(), true))))
        };
        let mut released = traces.released.subscribe();
        for (server, node) in nodes.iter().enumerate() {
            if !traces.on[server].is_released.swap(true, Ordering::AcqRel) {
                let (claims, traces) = (Arc::clone(self), Arc::clone(&traces));
                tokio::spawn(release_on(Arc::clone(node), server, Arc::clone(claim), traces, claims));
            }
        }
        // An error says that all are done.
        released.wait_for(|released| *released >= enough).await.ok();
    }
}

async fn release_on(
    node: Arc<Node>,
    server: usize,
    claim: Arc<Claim>,
    traces: Arc<Traces>,
    claims: Arc<Claims>,
) {
    let trace = &traces.on[server];
    if trace.is_asked.load(Ordering::Acquire) {
        // After whatever was asked before.
        let _turn = trace.turn.lock().await;
        until_released(&node, &claim).await;
    }
    let mut ended = 0;
    traces.released.send_modify(|released| {
        *released += 1;
        ended = *released;
    });
    if ended == traces.on.len() {
        claims.all().remove(&claim.owner);
    }
    if trace.is_doubtful.load(Ordering::Acquire) {
        // What was sent over a connection that broke may be carried out after the release.
        sleep(COMMAND).await;
        until_released(&node, &claim).await;
    }
}

/// Releases until it is done, or the lease is over in any case.
async fn until_released(node: &Arc<Node>, claim: &Claim) {
    let give_up = Instant::now() + claim.lease.unwrap_or(MAX_PAUSE);
    let mut pause = FIRST_PAUSE;
    while !(node.answers() && node.release(claim).await.is_ok()) {
        if Instant::now() + pause >= give_up {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}
