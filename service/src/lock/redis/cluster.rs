//! The lock in a Redis Cluster: each key on the node that has its slot.
//!
//! - A node that has lost a slot says who has it now (MOVED), and is followed. Where nodes cannot be reached,
//!   or have become replicas, the others are asked who has which slot.
//! - Tokens are counted by the node that has the slot. With another node another generation begins, also
//!   where the slot has been moved with its data: so tokens grow whatever a node that takes over has missed.
//! - A node announces the releases of its own slots. Those of others, which a cluster passes on, are not
//!   heeded.
//! - While a slot is being moved, a cluster refuses scripts of several keys (TRYAGAIN): who asks for the lock
//!   or gives it back waits until that is over. Renewals have one key, and go on (ASK).

mod slots;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::{
    self, AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, RedisResult,
    ServerErrorKind, Value,
};
use futures_util::future::join_all;
use prometheus_client::metrics::counter::Counter;
use rand::RngExt as _;
use tokio::time::{Instant, sleep, timeout};

use self::slots::{Address, Slots, slot_of};
use super::dialer::{Dialer, at};
use super::explained::explained;
use super::lock_server::{AcquireError, LockServer, Scripts};
use super::protocol::{COMMAND, is_of_a_demotion, is_of_the_connection, other};
use super::requirements::{self, NAME, unavailable};
use super::server::{Announcement, RedisServer};
use crate::config::ConfigError;
use crate::lock::leased::{Attempt, Backend, BackendError, Claim, Step, Wakeups};
use crate::lock::{ConnectError, LockState, NO_PRODUCT, TokenGenerations};

/// How long one request goes after a slot that is being moved, or that no node has.
const MOVING: Duration = Duration::from_millis(1_500);

/// How long to wait before such a slot is asked for again.
const MOVING_PAUSE: Duration = Duration::from_millis(50);

/// How long one node has to say who has which slot, and how long that is good for.
const ANSWER: Duration = Duration::from_millis(500);
const FRESH: Duration = Duration::from_millis(100);

/// The nodes of a cluster.
pub(super) struct Cluster {
    seeds: Vec<ConnectionInfo>,
    slots: Arc<Slots>,
    nodes: Mutex<HashMap<Address, Arc<LockServer>>>,
    /// When it was last asked who has which slot.
    asked: tokio::sync::Mutex<Option<Instant>>,
    scripts: Arc<Scripts>,
    generations: Arc<dyn TokenGenerations>,
    wakeups: Arc<Wakeups>,
    round_trips: Counter,
}

impl Cluster {
    /// Connects to the primaries of a cluster, of which some nodes are given. Fails where none of these can
    /// be reached, where a slot has no node, and where a node cannot be used.
    pub(super) async fn connect(
        seeds: Vec<ConnectionInfo>,
        generations: Arc<dyn TokenGenerations>,
        round_trips: Counter,
    ) -> Result<Self, ConnectError> {
        let cluster = Self {
            seeds,
            slots: Arc::default(),
            nodes: Mutex::default(),
            asked: tokio::sync::Mutex::default(),
            scripts: Arc::default(),
            generations,
            wakeups: Arc::default(),
            round_trips,
        };
        cluster.find_slots().await.map_err(|error| {
            let why = error.to_string();
            match why.contains("cluster support disabled") {
                true => ConnectError::Config(ConfigError::new(
                    "lock.redis.cluster",
                    format!("a server of lock.redis.url is no node of a Redis Cluster: {why}"),
                )),
                false => unavailable("the cluster", error).into(),
            }
        })?;
        if let Some(slot) = cluster.slots.gap() {
            return Err(unavailable("the cluster", format_args!("no node has slot {slot}")).into());
        }
        for address in cluster.slots.nodes() {
            let name = name_of(&address);
            let session = cluster.node(&address).server.session().await;
            let session = session.map_err(|error| unavailable(&name, error))?;
            requirements::check(&name, &session, true).await?;
        }
        Ok(cluster)
    }

    /// The node at an address.
    fn node(&self, address: &Address) -> Arc<LockServer> {
        let mut nodes = self.nodes.lock().expect("nothing panics while it holds this");
        if let Some(node) = nodes.get(address) {
            return Arc::clone(node);
        }
        let (wakeups, slots, own) = (Arc::clone(&self.wakeups), Arc::clone(&self.slots), address.clone());
        let announced = move |announcement: Announcement<'_>| match announcement {
            Announcement::Released(text) => {
                let key = text.split_once(' ').map_or(text, |(_, key)| key);
                if slots.node_of(slot_of(key)).is_none_or(|node| *node == own) {
                    wakeups.announced(text);
                }
            }
            Announcement::Interrupted => wakeups.wake_all(),
        };
        let dialer = Dialer::new(at(&self.seeds[0], address), None);
        let server = RedisServer::new(dialer, 0, self.round_trips.clone(), announced);
        let node = Arc::new(LockServer::new(server, &self.scripts, &self.generations));
        nodes.insert(address.clone(), Arc::clone(&node));
        node
    }

    /// The node that has a slot.
    fn node_of(&self, slot: u16) -> RedisResult<Arc<LockServer>> {
        let address =
            self.slots.node_of(slot).ok_or_else(|| other(format_args!("no node has slot {slot}")))?;
        Ok(self.node(&address))
    }

    /// Asks who has which slot: the nodes that are known, then those that the configuration names.
    async fn find_slots(&self) -> RedisResult<()> {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < FRESH) {
            return Ok(());
        }
        let known = self.slots.nodes().into_iter().map(|node| at(&self.seeds[0], &node));
        let mut errors = Vec::new();
        for info in known.chain(self.seeds.iter().cloned()) {
            let error = match timeout(ANSWER, slots_by(&info)).await {
                Ok(Ok(answer)) => match self.slots.take_over(&answer, &host_of(&info)) {
                    Ok(()) => {
                        *asked = Some(Instant::now());
                        self.forget_nodes();
                        return Ok(());
                    }
                    Err(error) => error.to_string(),
                },
                Ok(Err(error)) => explained(error, info.addr()).to_string(),
                Err(_) => "no answer in time".into(),
            };
            errors.push(format!("{}: {error}", info.addr()));
        }
        Err(other(errors.join("; ")))
    }

    /// Ends the connections to nodes that have no slot.
    fn forget_nodes(&self) {
        let known = self.slots.nodes();
        let mut nodes = self.nodes.lock().expect("nothing panics while it holds this");
        nodes.retain(|address, _| known.iter().any(|known| **known == *address));
    }

    /// Whether a request that failed so is to be made again, after what has to be done or waited for.
    async fn is_to_be_tried_again(&self, slot: u16, error: &RedisError, give_up: Instant) -> bool {
        use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, TryAgain};

        if Instant::now() >= give_up {
            return false;
        }
        if let Some(node) = redirected(error, Moved) {
            let is_known = self.slots.node_of(slot).is_some_and(|known| *known == node);
            self.slots.set(slot, node);
            if is_known {
                sleep(MOVING_PAUSE).await;
            }
            return true;
        }
        let waits = matches!(
            error.kind(),
            ErrorKind::Server(Moved | Ask | TryAgain | ClusterDown | MasterDown | BusyLoading)
        );
        if !waits && !is_of_the_connection(error) && !is_of_a_demotion(error) {
            return false;
        }
        sleep(MOVING_PAUSE).await;
        // Where nobody says so, what was known stands.
        self.find_slots().await.ok();
        true
    }

    /// An error of whatever node has a slot.
    fn failed_at(&self, slot: u16, error: &impl std::fmt::Display) -> BackendError {
        match self.slots.node_of(slot) {
            Some(node) => failed(format_args!("{}: {error}", name_of(&node))),
            None => failed(error),
        }
    }

    async fn renew_again(&self, claim: &Arc<Claim>, mut error: RedisError) -> Result<bool, BackendError> {
        let (slot, give_up) = (slot_of(&claim.key), Instant::now() + MOVING);
        loop {
            let renewed = match redirected(&error, ServerErrorKind::Ask) {
                Some(node) if Instant::now() < give_up => self.node(&node).renew_asking(claim).await,
                _ if self.is_to_be_tried_again(slot, &error, give_up).await => {
                    let node = self.node_of(slot).map_err(failed)?;
                    node.renew(std::slice::from_ref(claim)).await.and_then(|mut renewed| renewed.remove(0))
                }
                _ => return Err(failed(error)),
            };
            match renewed {
                Ok(renewed) => return Ok(renewed),
                Err(again) => error = again,
            }
        }
    }

    async fn renew_on(&self, address: &Address, claims: &[Arc<Claim>]) -> Vec<Result<bool, BackendError>> {
        let renewed = self.node(address).renew(claims).await;
        let renewed = match renewed {
            Ok(renewed) => renewed,
            Err(error) => vec![Err(error); claims.len()],
        };
        let again = claims.iter().zip(renewed).map(async |(claim, renewed)| match renewed {
            Ok(renewed) => Ok(renewed),
            Err(error) => self.renew_again(claim, error).await,
        });
        join_all(again).await
    }
}

/// Where an error of this kind leads to.
fn redirected(error: &RedisError, kind: ServerErrorKind) -> Option<Address> {
    if error.kind() != ErrorKind::Server(kind) {
        return None;
    }
    let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
    // Without a host, it is not said where; it has to be asked.
    (!host.is_empty()).then_some((host.to_owned(), port.parse().ok()?))
}

async fn slots_by(info: &ConnectionInfo) -> RedisResult<Value> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let mut connection =
        Client::open(info.clone())?.get_multiplexed_async_connection_with_config(&config).await?;
    redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await
}

fn host_of(info: &ConnectionInfo) -> String {
    match info.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
        other => other.to_string(),
    }
}

fn name_of((host, port): &Address) -> String {
    format!("{host}:{port}")
}

/// How many keys are looked at for one that a node has.
const MOST_TRIALS: u32 = 10_000;

#[async_trait]
impl Backend for Cluster {
    async fn attempt(self: Arc<Self>, claim: Arc<Claim>, _: Step) -> Result<Attempt, BackendError> {
        let (slot, give_up) = (slot_of(&claim.key), Instant::now() + MOVING);
        loop {
            let error = match self.node_of(slot) {
                Ok(node) => match node.acquire(&claim).await {
                    Ok(attempt) => return Ok(attempt),
                    Err(AcquireError::Redis(error)) => error,
                    Err(error) => return Err(self.failed_at(slot, &error)),
                },
                Err(error) => error,
            };
            if !self.is_to_be_tried_again(slot, &error, give_up).await {
                return Err(self.failed_at(slot, &error));
            }
        }
    }

    async fn renew(&self, claims: &[Arc<Claim>]) -> Vec<Result<bool, BackendError>> {
        let mut by_node: HashMap<Option<Arc<Address>>, Vec<usize>> = HashMap::new();
        for (number, claim) in claims.iter().enumerate() {
            by_node.entry(self.slots.node_of(slot_of(&claim.key))).or_default().push(number);
        }
        let renewals = by_node.iter().map(async |(node, numbers)| {
            let of_node: Vec<_> = numbers.iter().map(|number| Arc::clone(&claims[*number])).collect();
            match node {
                Some(node) => self.renew_on(node, &of_node).await,
                None => vec![Err(failed("no node has its slot")); of_node.len()],
            }
        });
        let mut outcomes = vec![Err(failed("it was not renewed")); claims.len()];
        let renewals = join_all(renewals).await;
        for (number, outcome) in by_node.values().flatten().zip(renewals.into_iter().flatten()) {
            outcomes[*number] = outcome;
        }
        outcomes
    }

    async fn release(&self, claim: &Arc<Claim>, note: Option<&str>) -> Result<(), BackendError> {
        let (slot, give_up) = (slot_of(&claim.key), Instant::now() + MOVING);
        loop {
            let released = match self.node_of(slot) {
                Ok(node) => node.release(claim, note).await,
                Err(error) => Err(error),
            };
            let Err(error) = released else { return Ok(()) };
            if !self.is_to_be_tried_again(slot, &error, give_up).await {
                return Err(self.failed_at(slot, &error));
            }
        }
    }

    async fn state(&self, key: &str) -> Result<LockState, BackendError> {
        let (slot, give_up) = (slot_of(key), Instant::now() + MOVING);
        loop {
            let state = match self.node_of(slot) {
                Ok(node) => node.state(key).await,
                Err(error) => Err(error),
            };
            match state {
                Ok(state) => return Ok(state),
                Err(error) if self.is_to_be_tried_again(slot, &error, give_up).await => {}
                Err(error) => return Err(self.failed_at(slot, &error)),
            }
        }
    }

    fn trial_keys(&self) -> Vec<String> {
        let nodes = self.slots.nodes();
        let key_of = |node: &Arc<Address>| {
            // With three nodes, a third of all keys are one's.
            let keys = (0..MOST_TRIALS).map(|number| format!("{NO_PRODUCT}{number}"));
            keys.into_iter().find(|key| self.slots.node_of(slot_of(key)).as_ref() == Some(node))
        };
        let keys: Vec<_> = nodes.iter().filter_map(key_of).collect();
        if keys.is_empty() { vec![NO_PRODUCT.into()] } else { keys }
    }

    fn wakeups(&self) -> &Arc<Wakeups> {
        &self.wakeups
    }

    fn pause(&self, _ahead: u32) -> Duration {
        Duration::from_millis(rand::rng().random_range(50..=100))
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn late_write_window(&self) -> Duration {
        // As with one server.
        COMMAND
    }

    async fn close(&self) {
        let nodes = self.nodes.lock().expect("nothing panics while it holds this");
        nodes.values().for_each(|node| node.server.close());
    }
}

fn failed(error: impl std::fmt::Display) -> BackendError {
    BackendError::Failed(error.to_string())
}
