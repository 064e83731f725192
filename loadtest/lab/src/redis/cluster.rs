//! A Redis Cluster.

use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Redis, START_TIMEOUT};
use crate::launch::{free_port, on_fresh_ports};
use crate::{ServerError, TlsFiles};

/// The slots of each node: all that there are.
const RANGES: [RangeInclusive<u16>; 3] = [0..=5_460, 5_461..=10_922, 10_923..=16_383];

/// Three Redis servers that are the primaries of a cluster, each with a third of the slots. They are numbered
/// from 0.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Makes a fresh cluster, and waits until all nodes agree that it is complete.
    pub async fn start() -> Result<Self, ServerError> {
        Self::start_with(None).await
    }

    /// The same with nodes that speak TLS, with each other, too, and say so to clients that do. Their
    /// certificate is for 127.0.0.1.
    pub async fn start_with_tls(files: &TlsFiles) -> Result<Self, ServerError> {
        Self::start_with(Some(files)).await
    }

    async fn start_with(tls: Option<&TlsFiles>) -> Result<Self, ServerError> {
        let mut nodes = Vec::new();
        let mut buses = Vec::new();
        for _ in RANGES {
            let (node, bus) = on_fresh_ports(|| start_node(tls)).await?;
            nodes.push(node);
            buses.push(bus);
        }
        let cluster = Self { nodes };
        cluster.join(&buses).await.map_err(ServerError::prepare("a cluster"))?;
        Ok(cluster)
    }

    /// What its clients are configured with: the addresses of all nodes.
    pub fn url(&self) -> String {
        let urls: Vec<_> = self.nodes.iter().map(Redis::known_url).collect();
        urls.join(",")
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// The nodes, to be killed and started again.
    pub fn nodes_mut(&mut self) -> &mut [Redis] {
        &mut self.nodes
    }

    /// The slot of a key.
    pub async fn slot_of(&self, key: &str) -> io::Result<u16> {
        let slot = self.nodes[0].command(&["CLUSTER", "KEYSLOT", key]).await?;
        slot.parse().map_err(io::Error::other)
    }

    /// Which node has a slot.
    pub async fn owner_of(&self, slot: u16) -> io::Result<usize> {
        for number in 0..self.nodes.len() {
            let nodes = self.nodes[number].command(&["CLUSTER", "NODES"]).await?;
            let own = nodes.lines().find(|line| line.contains("myself")).unwrap_or_default();
            let has = |range: &str| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                first.parse().is_ok_and(|first: u16| first <= slot)
                    && last.parse().is_ok_and(|last: u16| slot <= last)
            };
            if own.split(' ').skip(8).any(has) {
                return Ok(number);
            }
        }
        Err(io::Error::other(format!("no node has slot {slot}")))
    }

    /// Begins to move a slot from one node to another: what is new there is on the other.
    pub async fn begin_move(&self, slot: u16, from: usize, to: usize) -> io::Result<()> {
        let slot = slot.to_string();
        let (source, target) = (self.id(from).await?, self.id(to).await?);
        self.nodes[to].command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]).await?;
        self.nodes[from].command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]).await.map(drop)
    }

    /// Moves all keys of a slot that is being moved.
    pub async fn move_keys(&self, slot: u16, from: usize, to: usize) -> io::Result<()> {
        let (slot, port) = (slot.to_string(), self.nodes[to].port.to_string());
        loop {
            let keys = self.nodes[from].command(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await?;
            let keys: Vec<_> = keys.lines().filter(|key| !key.is_empty()).collect();
            if keys.is_empty() {
                return Ok(());
            }
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            migrate.extend(keys);
            self.nodes[from].command(&migrate).await?;
        }
    }

    /// Gives a slot that is being moved to the other node, and lets all know.
    pub async fn end_move(&self, slot: u16, to: usize) -> io::Result<()> {
        let (slot, target) = (slot.to_string(), self.id(to).await?);
        let others = (0..self.nodes.len()).filter(|number| *number != to);
        for number in [to].into_iter().chain(others) {
            self.nodes[number].command(&["CLUSTER", "SETSLOT", &slot, "NODE", &target]).await?;
        }
        Ok(())
    }

    async fn id(&self, number: usize) -> io::Result<String> {
        self.nodes[number].command(&["CLUSTER", "MYID"]).await
    }

    async fn join(&self, buses: &[String]) -> io::Result<()> {
        for (number, (node, range)) in self.nodes.iter().zip(RANGES).enumerate() {
            let (first, last) = (range.start().to_string(), range.end().to_string());
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await?;
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]).await?;
        }
        for (node, bus) in self.nodes.iter().zip(buses).skip(1) {
            let meet =
                ["CLUSTER", "MEET", "127.0.0.1", &node.known_port().to_string(), bus].map(str::to_owned);
            self.nodes[0].command(&meet.each_ref().map(String::as_str)).await?;
        }
        let give_up = Instant::now() + START_TIMEOUT;
        for node in &self.nodes {
            loop {
                let info = node.command(&["CLUSTER", "INFO"]).await?;
                let says = |wanted: &str| info.lines().any(|line| line == wanted);
                if says("cluster_state:ok") && says("cluster_known_nodes:3") && says("cluster_slots_ok:16384")
                {
                    break;
                }
                if Instant::now() >= give_up {
                    return Err(io::Error::other(format!("it is not complete: {info}")));
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }
}

/// Starts a node that knows no other, and returns the port on which nodes speak to each other.
async fn start_node(tls: Option<&TlsFiles>) -> Result<(Redis, String), ServerError> {
    let bus = free_port()?.to_string();
    let mut options =
        vec!["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", &bus];
    if tls.is_some() {
        options.extend(["--tls-cluster", "yes"]);
    }
    let options: Vec<_> = options.into_iter().map(str::to_owned).collect();
    Ok((Redis::start_as(None, false, &options, tls).await?, bus))
}
