//! Several ZooKeeper servers that are one service.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::node::{Membership, Node, START_TIMEOUT, Until, ask};
use crate::launch::{ServerError, found_address_in_use, free_ports, on_fresh_ports};
use crate::{Process, ProcessError, Proxy, Server, ServerKind};

/// How many ports a server has: for its clients, for the leader's proposals, and for elections.
const PORTS: usize = 3;

/// An ensemble of ZooKeeper servers on free ports, as production has it: it serves for as long as more than
/// half of its servers do. Servers are numbered from 0.
///
/// A leader that is killed is replaced within about a second. One that is paused is missed after a second,
/// and then replaced.
#[derive(Debug)]
pub struct Ensemble {
    nodes: Vec<Node>,
    links: Links,
}

/// The network between the servers: of each pair, the way from the one that follows to the one that leads.
type Links = HashMap<(usize, usize), Proxy>;

/// For how long a server tolerates another's silence.
#[derive(Clone, Copy, Debug)]
enum Silence {
    /// A second.
    Short,
    /// Ten, which is what servers wait by default.
    Usual,
}

impl Ensemble {
    /// Makes `size` fresh servers, and waits until all serve and one of them leads.
    ///
    /// # Panics
    /// With a size of zero.
    pub async fn start(size: usize) -> Result<Self, ServerError> {
        assert!(size > 0, "an ensemble has at least one server");
        on_fresh_ports(|| async move { Self::start_on(&free_ports(size * PORTS)?, Silence::Short).await })
            .await
    }

    /// The same with a [link](Self::link) between each two servers that can be broken. A follower that cannot
    /// hear its leader any more goes on serving reads for ten seconds, as servers do by default.
    ///
    /// # Panics
    /// With a size of zero.
    pub async fn start_linked(size: usize) -> Result<Self, ServerError> {
        assert!(size > 0, "an ensemble has at least one server");
        on_fresh_ports(|| async move { Self::start_on(&free_ports(size * PORTS)?, Silence::Usual).await })
            .await
    }

    async fn start_on(ports: &[u16], tolerated: Silence) -> Result<Self, ServerError> {
        let ports: Vec<_> = ports.chunks_exact(PORTS).collect();
        let links = match tolerated {
            Silence::Short => Links::new(),
            Silence::Usual => links_between(&ports).await.map_err(ServerError::prepare("a network"))?,
        };
        // In ticks of 200 milliseconds: a follower has so long to take over the leader's data, and to show
        // that it is alive. An ensemble of one elects a leader, too.
        let limits = match tolerated {
            Silence::Short => "initLimit=25\nsyncLimit=5",
            Silence::Usual => "initLimit=50\nsyncLimit=50",
        };
        let mut nodes = Vec::new();
        for (server, own) in ports.iter().enumerate() {
            let mut configuration = format!("{limits}\nstandaloneEnabled=false\n");
            for (other, theirs) in ports.iter().enumerate() {
                // It listens on its own port, and reaches the others over the links.
                let port = links.get(&(server, other)).map_or(theirs[1], |link| link.address().port());
                configuration.push_str(&format!("server.{}=127.0.0.1:{port}:{}\n", other + 1, theirs[2]));
            }
            let membership = Membership { id: server + 1, configuration };
            nodes.push(Node::start(own[0], Some(&membership), "", Until::Runs).await?);
        }
        let mut ensemble = Self { nodes, links };
        ensemble.until_complete().await?;
        Ok(ensemble)
    }

    async fn until_complete(&mut self) -> Result<(), ServerError> {
        let give_up = Instant::now() + START_TIMEOUT;
        loop {
            let roles = self.roles().await;
            let leaders = roles.iter().flatten().filter(|role| role.leads).count();
            if leaders == 1 && roles.iter().all(Option::is_some) {
                return Ok(());
            }
            for Node { process, .. } in &mut self.nodes {
                if let Some(status) = process.exited() {
                    return Err(process.not_ready(format!("ended with {status}")).into());
                }
                // A server that cannot be reached by its peers goes on trying.
                if found_address_in_use(process) {
                    return Err(process.not_ready("found one of its ports taken".into()).into());
                }
            }
            if Instant::now() >= give_up {
                let what = format!("was not in a complete ensemble within {START_TIMEOUT:?}");
                return Err(self.nodes[0].process.not_ready(what).into());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// How many servers there are, alive or not.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// Where a server listens for clients: host and port.
    pub fn address(&self, server: usize) -> String {
        self.nodes[server].address()
    }

    /// Which server leads; `None` during an election, and where too few serve. One that is paused is asked in
    /// vain for a second, and does not count.
    pub async fn leader(&self) -> Option<usize> {
        let roles = self.roles().await.into_iter().enumerate();
        let leaders = roles.filter_map(|(server, role)| Some((server, role?))).filter(|(_, role)| role.leads);
        // A leader that was cut off learns late that there is a new one, whose epoch is then greater.
        leaders.max_by_key(|(_, role)| role.zxid).map(|(server, _)| server)
    }

    /// What a server says about itself: the answer to the four-letter word `mntr`. A server that does not
    /// answer within a second, or does not serve, is an error.
    pub async fn monitor(&self, server: usize) -> io::Result<BTreeMap<String, String>> {
        self.nodes[server].monitor().await
    }

    /// The network on which `follower` hears `leader` and replies to it, whenever those two are that to each
    /// other. What they vote with takes another way.
    ///
    /// # Panics
    /// When the ensemble was not started with [links](Self::start_linked), or there are no such two servers.
    pub fn link(&self, follower: usize, leader: usize) -> &Proxy {
        &self.links[&(follower, leader)]
    }

    /// All networks between two servers, where there are any.
    pub fn links(&self) -> impl Iterator<Item = &Proxy> {
        self.links.values()
    }

    /// Ends a server at once: SIGKILL. Its data is kept.
    pub async fn kill(&mut self, server: usize) -> Result<(), ProcessError> {
        self.nodes[server].process.kill().await
    }

    /// Starts a server again that was killed, on the same data and ports, and waits until it answers; whether
    /// it serves depends on the others.
    pub async fn restart(&mut self, server: usize) -> Result<(), ServerError> {
        self.nodes[server].restart(Until::Answers).await
    }

    /// Stops a server in its tracks: SIGSTOP.
    pub fn pause(&self, server: usize) -> Result<(), ProcessError> {
        self.nodes[server].process.pause()
    }

    /// Lets it go on: SIGCONT.
    pub fn resume(&self, server: usize) -> Result<(), ProcessError> {
        self.nodes[server].process.resume()
    }

    /// A server's process.
    pub fn process(&mut self, server: usize) -> &mut Process {
        &mut self.nodes[server].process
    }

    /// What each server is at the moment; `None` for one that does not serve.
    async fn roles(&self) -> Vec<Option<Role>> {
        let mut answers = JoinSet::new();
        for (server, node) in self.nodes.iter().enumerate() {
            let port = node.port;
            answers.spawn(async move { (server, ask(port, "srvr").await) });
        }
        let mut roles = vec![None; self.nodes.len()];
        while let Some(answer) = answers.join_next().await {
            let (server, answer) = answer.expect("asking does not panic");
            roles[server] = answer.ok().and_then(|answer| Role::parse(&answer));
        }
        roles
    }
}

#[async_trait]
impl Server for Ensemble {
    fn kind(&self) -> ServerKind {
        ServerKind::Zookeeper
    }

    fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Node::address).collect()
    }

    fn url_at(&self, addresses: &[String]) -> String {
        addresses.join(",")
    }

    async fn kill(&mut self) -> Result<(), ServerError> {
        let leader = self.leader().await.unwrap_or_default();
        Ok(self.kill(leader).await?)
    }

    async fn restart(&mut self) -> Result<(), ServerError> {
        for server in 0..self.size() {
            if self.process(server).exited().is_some() {
                self.restart(server).await?;
            }
        }
        Ok(())
    }

    async fn pause(&self) -> Result<(), ServerError> {
        let leader = self.leader().await.unwrap_or_default();
        Ok(self.pause(leader)?)
    }

    fn resume(&self) -> Result<(), ServerError> {
        for node in &self.nodes {
            node.process.resume()?;
        }
        Ok(())
    }

    async fn is_led(&self) -> bool {
        self.leader().await.is_some()
    }
}

/// A link from each server to each other, to the second of its ports.
async fn links_between(ports: &[&[u16]]) -> io::Result<Links> {
    let mut links = Links::new();
    for follower in 0..ports.len() {
        for leader in (0..ports.len()).filter(|leader| *leader != follower) {
            let upstream = format!("127.0.0.1:{}", ports[leader][1]);
            links.insert((follower, leader), Proxy::start(&upstream).await?);
        }
    }
    Ok(links)
}

/// What a server is to the others.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Role {
    leads: bool,
    /// The last transaction it knows, with the leader's epoch in the upper half.
    zxid: u64,
}

impl Role {
    /// Reads the answer to `srvr`.
    fn parse(answer: &str) -> Option<Self> {
        let value = |key: &str| answer.lines().find_map(|line| line.strip_prefix(key));
        let zxid = u64::from_str_radix(value("Zxid: 0x")?, 16).ok()?;
        Some(Self { leads: value("Mode: ")? == "leader", zxid })
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_role_is_read_where_there_is_one() {
        let answer =
            "Zookeeper version: 3.8.0\nConnections: 1\nZxid: 0x30000001f\nMode: leader\nNode count: 5\n";
        assert_eq!(Role::parse(answer), Some(Role { leads: true, zxid: 0x3_0000_001f }));
        assert!(!Role::parse(&answer.replace("leader", "follower")).unwrap().leads);
        assert_eq!(Role::parse("This ZooKeeper instance is not currently serving requests\n"), None);
    }

    #[tokio::test]
    async fn a_taken_address_is_recognised_on_each_port() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        for port in 0..PORTS {
            let mut ports = free_ports(PORTS).unwrap();
            ports[port] = taken.local_addr().unwrap().port();
            let error = Ensemble::start_on(&ports, Silence::Short).await.unwrap_err();
            assert!(error.is_address_in_use(), "port {port}: {error}");
        }
    }
}
