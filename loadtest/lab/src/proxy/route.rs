//! What a proxy's connections have in common: the state of the route, and the count of what has passed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// A direction through a [`Proxy`](super::Proxy).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server: requests.
    ToServer,
    /// From the server to the client: answers.
    ToClient,
}

/// The state of the route.
#[derive(Debug, Default)]
pub(super) struct Route {
    lanes: [Lane; 2],
    /// Whether new connections are reset.
    pub refuses: bool,
    /// How often all connections have been cut. A connection is one of the time between two cuts.
    pub cuts: u64,
    /// How often all have been stranded.
    pub strands: u64,
}

/// How often connections have been ended, in each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub cuts: u64,
    pub strands: u64,
}

/// The state of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lane {
    pub delay: Duration,
    pub blackholed: bool,
}

impl Route {
    pub fn lane(&self, direction: Direction) -> Lane {
        self.lanes[direction as usize]
    }

    pub fn lane_mut(&mut self, direction: Direction) -> &mut Lane {
        &mut self.lanes[direction as usize]
    }

    /// Makes it what it was at first. What has been cut or stranded stays so.
    pub fn heal(&mut self) {
        *self = Self { cuts: self.cuts, strands: self.strands, ..Self::default() };
    }

    pub fn ends(&self) -> Ends {
        Ends { cuts: self.cuts, strands: self.strands }
    }
}

/// Waits until what came at `since` may pass in a direction.
pub(super) async fn passable(route: &mut watch::Receiver<Route>, direction: Direction, since: Instant) {
    loop {
        let lane = route.borrow_and_update().lane(direction);
        // Some delays are longer than time.
        let due = since.checked_add(lane.delay).filter(|_| !lane.blackholed);
        match due {
            Some(due) if due <= Instant::now() => return,
            Some(due) => tokio::select! {
                () = sleep_until(due) => {}
                () = changed(route) => {}
            },
            None => changed(route).await,
        }
    }
}

/// Waits until a direction is no blackhole.
pub(super) async fn open(route: &mut watch::Receiver<Route>, direction: Direction) {
    while route.borrow_and_update().lane(direction).blackholed {
        changed(route).await;
    }
}

/// Waits until the state of the route is another than was last seen.
pub(super) async fn changed(route: &mut watch::Receiver<Route>) {
    if route.changed().await.is_err() {
        // The proxy is gone, and this task is about to be.
        std::future::pending::<()>().await;
    }
}

/// What has passed in each direction, and how many connections there are.
#[derive(Debug, Default)]
pub(super) struct Passed {
    pub connections: AtomicUsize,
    pub chunks: [AtomicU64; 2],
    pub bytes: [AtomicU64; 2],
}

impl Passed {
    /// Counts a connection for as long as the value lives.
    pub fn open(self: &Arc<Self>) -> Open {
        self.connections.fetch_add(1, Ordering::SeqCst);
        Open(Arc::clone(self))
    }
}

/// A connection that counts.
pub(super) struct Open(Arc<Passed>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}
